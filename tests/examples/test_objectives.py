"""The example runs with every objective, and the table says what was measured."""

import argparse
import json

import pytest

import keras_robust as kr

pytestmark = pytest.mark.once


@pytest.fixture
def example(load_example):
    return load_example("objectives")


def test_every_objective_is_measured(example):
    data = kr.data.load("embedded", limit=128)
    measured = {type(o).__name__ for o in example.objectives(data).values()}
    # Distil needs a teacher: kr.Distillation.
    abstract = {"Objective", "Carrying", "Outcome", "Step", "Distil"}
    assert measured >= {*kr.objectives.__all__} - abstract


def test_quick(example, tmp_path, capsys):
    only = ["plain", "Madry", "Fast, guarded", "Free(4)"]
    made = example.main(["--quick", "--output", str(tmp_path / "rows.json"), "--only", *only])
    assert list(made) == ["plain", "Madry", "Madry, average (EMA)", *only[2:]]
    assert json.loads((tmp_path / "rows.json").read_text()) == made
    for clean, pgd, margin, autoattack, seconds, minutes in made.values():
        assert 0 <= max(pgd, margin) <= clean + 2 and clean > 15
        assert autoattack is None and 0 < seconds <= 60 * minutes + 0.6
    printed = capsys.readouterr().out
    assert "PGD-20 %" in printed and "Madry, average (EMA)" in printed
    # Rows in the file stay, whatever is asked for.
    kept = made | {"plain": [1.5] * 6}
    (tmp_path / "rows.json").write_text(json.dumps(kept))
    again = example.main(["--quick", "--output", str(tmp_path / "rows.json"), "--only", "plain"])
    assert again == kept and "1.5" in capsys.readouterr().out


def test_each_data_set_has_a_setting(example):
    parser = argparse.Namespace(
        data="some/cifar10_subset.npz", quick=False, epochs=3, steps=None, float32=True
    )
    setting = example.setting_of(argparse.Namespace(**vars(parser), autoattack=7))
    assert (setting.eps, setting.epochs, setting.autoattack) == (8 / 255, 3, 7)
    assert (setting.steps, setting.attack_dtype) == (7, None)
    with pytest.raises(SystemExit, match="no setting for 'gtsrb'"):
        example.setting_of(argparse.Namespace(**vars(parser) | {"data": "gtsrb"}, autoattack=7))
