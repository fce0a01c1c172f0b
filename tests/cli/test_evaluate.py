"""`keras-robust evaluate`: every option reaches the evaluation, and what it says of itself."""

import json
import shutil

import pytest

import keras_robust as kr
from keras_robust.attacks import FGSM, PGD, AutoAttack, Square

SETTINGS = ["--eps", 0.3, "--norm", "l2", "--steps", 2, "--step-size", 0.05, "--seed", 3]


def test_the_report_says_what_was_asked_for(call, archive, small):
    few = ["--data", archive, "--limit", 9, "--attacks", "fgsm,pgd"]
    code, text, _ = call("evaluate", small, *few, *SETTINGS, "--json")
    facts = json.loads(text)
    attacks = [FGSM(0.3, "l2"), PGD(0.3, "l2", steps=2, step_size=0.05)]
    assert code == 0 and facts["seed"] == 3 and facts["data"]["images"] == 9
    assert [attack["config"] for attack in facts["attacks"]] == [repr(each) for each in attacks]


def test_the_evaluation_is_given_what_was_asked_for(call, archive, saved, tmp_path, spied, seeds):
    seen = spied(kr, "evaluate")
    given = ["--attacks", "autoattack, PGD,pgd,square,fgsm", "--no-black-box"]
    given += ["--diagnose", "--corruptions", "--images", 40]
    given += ["--journal", tmp_path / "journal", *SETTINGS]
    for options in ([], given):
        call("evaluate", f"mine={saved}", "--data", archive, *options)
    (models, x, y), default = seen[0]
    assert list(models) == ["mine"] and len(x) == len(y) == 48  # All there are.
    assert default["attacks"] == [PGD(0.1, steps=20), AutoAttack(0.1)]
    assert default["black_box"] is True and default["journal"] is None
    assert not default["diagnose"] and not default["corruptions"]
    (_, x, y), taken = seen[1]
    assert len(x) == len(y) == 40 and seeds == [0, 3]
    pgd = PGD(0.3, "l2", steps=2, step_size=0.05)
    others = [kind(0.3, "l2") for kind in (AutoAttack, Square, FGSM)]
    assert taken["attacks"] == [others[0], pgd, *others[1:]]
    assert taken["black_box"] is False and taken["journal"] == tmp_path / "journal"
    assert taken["diagnose"] and taken["corruptions"]
    assert default["seed"] == 0 and taken["seed"] == 3
    assert taken["class_names"] == kr.data.load(archive).class_names


@pytest.mark.parametrize("name", ["a", None])
def test_two_artifacts_of_one_name_are_refused(call, archive, saved, tmp_path, name):
    other = tmp_path / "other" / saved.name
    other.parent.mkdir()
    shutil.copy(saved, other)
    both = [path if name is None else f"{name}={path}" for path in (saved, other)]
    code, text, errors = call("evaluate", *both, "--data", archive)
    name = name or "model.keras"
    assert code == 2 and text == ""
    assert f"Two artifacts are named {name!r}. Name them: first={other}" in errors
