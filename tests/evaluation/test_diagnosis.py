"""The whole diagnosis: masked models are exposed, honest ones are not, files are looked at too."""

import functools
import json

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import FGSM, PGD, Square
from keras_robust.evaluation import _diagnosis, _inputs
from keras_robust.evaluation._artifacts import open_artifact
from keras_robust.evaluation._diagnosis import CHECKS, diagnose

EPS = 0.1
_known = {}


def look(value, x, y, attack, **settings):
    """Check -> finding."""
    artifact, _ = _inputs.probe(open_artifact("m", value, "m"), x, "m")
    found = diagnose(artifact, x, y, attack, **settings)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return {each["check"]: each for each in found}


@pytest.fixture
def only(monkeypatch):
    """Leaves these checks alone: each is traced anew for each model."""

    def choose(*names):
        chosen = {name: CHECKS[name] for name in ("randomness", *names)}
        monkeypatch.setattr(_diagnosis, "CHECKS", chosen)

    return choose


@pytest.fixture
def diagnosed(masked_model, small_images):
    """Name of a masked or honest model -> check -> finding, made once in a process."""

    def of(name):
        if name not in _known:
            # On the robust network the cross-entropy leaves 2.5 or 3.5 points more than the margin,
            # by the order in which threads add: on both sides of what is warned of.
            attack = PGD(EPS, steps=20, loss="margin" if name == "robust" else "ce")
            _known[name] = look(masked_model(name), small_images.x, small_images.y, attack)
        return _known[name]

    return of


def verdicts(findings, *which):
    return {
        check: found["verdict"] for check, found in findings.items() if not which or check in which
    }


@pytest.mark.parametrize("name", ["natural", "robust"])
def test_honest_models_are_not_flagged(diagnosed, name):
    assert verdicts(diagnosed(name)) == dict.fromkeys(CHECKS, "ok")


def test_defensive_distillation_is_exposed(diagnosed):
    found = diagnosed("distilled")
    bad = {check: verdict for check, verdict in verdicts(found).items() if verdict != "ok"}
    assert bad == {"gradients": "suspicious", "losses": "suspicious"}
    numbers = found["losses"]["numbers"]
    assert numbers["cross_entropy_misses_points"] > 30
    assert numbers["accuracy"]["log odds"] < 0.3 < 0.5 < numbers["accuracy"]["cross-entropy"]
    assert found["gradients"]["numbers"]["cross_entropy_without_gradient_share"] > 0.5
    assert found["gradients"]["numbers"]["log_odds_without_gradient_share"] == 0
    assert "the number format" in found["losses"]["meaning"]
    assert "rounds to zero" in found["gradients"]["meaning"]


def test_rounding_layer_is_exposed(diagnosed):
    found = diagnosed("rounded")
    exposed = ("gradients", "finite differences", "accuracy against eps")
    exposed += ("random against gradient", "black box against white box", "straight through")
    assert verdicts(found, *exposed) == dict.fromkeys(exposed, "suspicious")
    assert found["gradients"]["numbers"]["log_odds_without_gradient_share"] == 1
    assert found["finite differences"]["numbers"]["not_explained_share"] == 1
    # PGD alone overestimates by more than 30 points.
    assert found["black box against white box"]["numbers"]["only_square_share"] > 0.3
    assert found["straight through"]["numbers"]["only_straight_through_share"] > 0.3
    assert found["steps"]["meaning"].endswith("this says nothing.")


def test_random_model_is_exposed(masked_model, small_images, only):
    only("finite differences", "single step", "restarts")
    found = look(masked_model("noisy"), small_images.x, small_images.y, PGD(EPS))
    assert found["randomness"]["verdict"] == "suspicious"
    assert "eot=" in found["randomness"]["meaning"]
    assert len(found["randomness"]["numbers"]["accuracy"]) == 2
    assert found["finite differences"]["verdict"] != "ok"
    for check, each in found.items():
        if each["verdict"] != "ok" and check != "randomness":
            assert "The model is random" in each["meaning"]


@pytest.mark.parametrize("name", ["distilled", "saturated"])
def test_textbook_pgd_alone_overestimates_and_the_default_does_not(
    masked_model, small_images, name
):
    model, x, y = masked_model(name), small_images.x, small_images.y

    def accuracy(attack):
        return float((model(attack(model, x, y)).numpy().argmax(-1) == y).mean())

    textbook = accuracy(PGD(EPS, loss=kr.losses.cross_entropy))
    truth = accuracy(Square(EPS, queries=300))
    assert textbook > truth + 0.3
    assert accuracy(PGD(EPS)) < truth + 0.01


def test_saturated_logits_and_a_blind_loss_given_are_exposed(masked_model, small_images, only):
    only("gradients", "losses", "accuracy against eps")
    x, y = small_images.x[:60], small_images.y[:60]
    attack = PGD(EPS, steps=5, loss=kr.losses.cross_entropy)
    found = look(masked_model("saturated"), x, y, attack)
    assert found["losses"]["numbers"]["loss_given_misses_points"] > 30
    assert "change it" in found["losses"]["meaning"]
    assert found["gradients"]["numbers"]["cross_entropy_without_gradient_share"] > 0.9
    bad = ("gradients", "losses", "accuracy against eps")
    assert verdicts(found, *bad) == dict.fromkeys(bad, "suspicious")
    assert found["accuracy against eps"]["numbers"]["standing_at_no_limit_share"] > 0.05


def test_model_without_a_gradient(inside):
    model, x, y, radius = inside()
    found = look(lambda x: model(tf.round(x * 250) / 250), x, y, PGD(0.02))
    assert found["gradients"]["verdict"] == "suspicious"
    assert "No gradient reaches the input" in found["gradients"]["meaning"]
    assert found["left out"]["verdict"] == "warning"
    assert (
        "No gradient reaches the input: finite differences, losses" in found["left out"]["meaning"]
    )
    assert found["black box against white box"]["numbers"]["accuracy"]["Square-300"] < 1
    # Its gradient passed straight through the rounding is that of the linear model.
    through = found["straight through"]["numbers"]["accuracy"]["PGD-20 straight through"]
    assert through == pytest.approx((radius > 0.02).mean(), abs=0.1)
    assert found["straight through"]["verdict"] == "suspicious"


def test_saved_model_without_a_gradient_is_asked(inside, saved_model):
    model, x, y, radius = inside()
    path = saved_model(lambda x: model(tf.round(x * 250) / 250), 12)
    found = look(path, x, y, PGD(0.02))
    assert found["gradients"]["verdict"] == "suspicious"
    assert found["black box against white box"]["numbers"]["accuracy"]["Square-300"] < 1


def test_file_gets_the_checks_that_need_no_gradient(inside, tflite_file):
    model, x, y, radius = inside()
    found = look(tflite_file(model, 12), x, y, FGSM(0.05))
    assert verdicts(found) == {
        "randomness": "ok",
        "accuracy against eps": "ok",
        "random against gradient": "ok",
        "black box against white box": "ok",
        "left out": "warning",
    }
    assert (
        "A .tflite file has no gradients: gradients, finite differences,"
        in (found["left out"]["meaning"])
    )
    curve = found["accuracy against eps"]["numbers"]["accuracy"]
    assert curve["clean"] == 1 and curve["no limit"] == 0
    # Nothing outside the closed form, and with 12 inputs next to everything inside it.
    assert 0 <= curve["eps 0.05"] - (radius > 0.05).mean() < 0.1


def test_all_radii_of_a_linear_model_are_its_closed_form(inside, only):
    only("gradients", "finite differences", "single step", "accuracy against eps")
    model, x, y, radius = inside()
    found = look(model, x, y, FGSM(0.02))
    curve = found["accuracy against eps"]["numbers"]["accuracy"]
    expected = {f"eps {f * 0.02:.3g}": (radius > f * 0.02).mean() for f in (0.001, 0.25, 0.5, 1, 2)}
    assert {eps: curve[eps] for eps in expected} == pytest.approx(expected)
    assert curve["no limit"] == 0 and curve["clean"] == 1
    explained = found["finite differences"]["numbers"]["gradient_explains"]
    assert all(share == pytest.approx(1, abs=1e-2) for share in explained.values())
    assert set(verdicts(found).values()) == {"ok"}


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_other_norms(inside, norm, only):
    only("finite differences", "accuracy against eps", "random against gradient")
    model, x, y, _ = inside(count=30)
    found = look(model, x, y, PGD(0.05, norm, steps=5))
    assert set(verdicts(found).values()) == {"ok"}
    assert found["accuracy against eps"]["numbers"]["accuracy"]["no limit"] == 0


def test_shares_are_of_all_images_and_only_the_first_are_used(inside, only):
    only("accuracy against eps")
    model, x, y, radius = inside()
    y = np.where(np.arange(60) < 10, 1 - y, y)
    found = look(model, x, y, FGSM(0.02), images=40)
    accuracy = found["accuracy against eps"]["numbers"]["accuracy"]
    assert accuracy["clean"] == 0.75
    assert accuracy["eps 0.02"] == (radius[10:40] > 0.02).sum() / 40


def test_batches_change_no_verdict_and_seeds_repeat(cnn, blobs, only):
    only("finite differences", "random against gradient")
    x, _ = blobs(30)
    model = cnn()
    y = model(x).numpy().argmax(-1)

    def run(**settings):
        return look(model, x, y, PGD(0.1, steps=5), **settings)

    one = run(seed=3)
    assert run(seed=3) == one
    assert verdicts(run(seed=3, batch_size=7)) == verdicts(one)
    other = run(seed=4)
    check = "finite differences"
    assert other[check]["verdict"] == one[check]["verdict"]
    assert other[check]["numbers"] != one[check]["numbers"]


def test_nothing_right_is_said(inside):
    model, x, y, _ = inside(count=5)
    found = look(model, x, 1 - y, FGSM(0.02))
    assert verdicts(found) == {"clean accuracy": "warning"}
    assert "Check the labels" in found["clean accuracy"]["meaning"]


def test_progress_names_each_check(inside, only):
    only("gradients", "single step")
    model, x, y, _ = inside(count=20)
    lines = []
    look(model, x, y, FGSM(0.02), say=lines.append)
    assert lines == [
        "honesty check 1/3 of m: randomness: ok",
        "honesty check 2/3 of m: gradients: ok",
        "honesty check 3/3 of m: single step: ok",
    ]


def test_model_is_left_as_it_was(cnn, blobs, only):
    only("gradients", "finite differences", "restarts", "black box against white box")
    x, y = blobs(12)
    model = cnn(batch_norm=True)
    y = model(x).numpy().argmax(-1)
    before = [np.array(weight) for weight in model.get_weights()]
    look(model, x, y, PGD(0.1, steps=2))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(("norm", "eps"), [("spatial", 0.1), ("linf", 0.0), ("linf", None)])
def test_attack_without_a_ball_is_refused(inside, norm, eps):
    model, x, y, _ = inside(count=3)
    attack = functools.partial(lambda: None)
    attack.norm, attack.eps = norm, eps
    with pytest.raises(ValueError, match=r"`diagnose` needs an attack with eps > 0 in the norm"):
        look(model, x, y, attack)


def test_evaluate_is_not_fooled_and_says_why(masked_model, small_images, only):
    only("gradients", "losses")
    x, y = small_images.x[:40], small_images.y[:40]
    textbook = PGD(EPS, loss=kr.losses.cross_entropy)
    models = {name: masked_model(name) for name in ("rounded", "distilled")}
    report = kr.evaluate(
        models, x, y, [PGD(EPS)], diagnose=True, eps_sweep=(), progress=False, latency_runs=1
    )
    for name, model in models.items():
        found = report.to_dict()["artifacts"][name]
        alone = (model(textbook(model, x, y)).numpy().argmax(-1) == y).mean()
        assert alone > found["worst_case"] + 0.3, name
        assert {each["check"]: each["verdict"] for each in found["diagnosis"]}["gradients"] == (
            "suspicious"
        )
    assert "rounds to zero" in report.table() and "gives no usable gradient" in report.table()
