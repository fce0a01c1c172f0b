"""Each check on models made so that its statistic is known."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_robust import losses
from keras_robust.attacks import FGSM, PGD, Square
from keras_robust.evaluation._artifacts import open_artifact
from keras_robust.evaluation.diagnosis._budget import (
    check_restarts,
    check_single_step,
    check_steps,
)
from keras_robust.evaluation.diagnosis._finding import VERDICTS, LeftOut, grade
from keras_robust.evaluation.diagnosis._gradients import check_differences, check_gradients
from keras_robust.evaluation.diagnosis._losses import check_losses
from keras_robust.evaluation.diagnosis._outside import check_black_box, check_random
from keras_robust.evaluation.diagnosis._radius import check_radius
from keras_robust.evaluation.diagnosis._randomness import check_randomness
from keras_robust.evaluation.diagnosis._straight import check_straight_through
from keras_robust.evaluation.diagnosis._subject import Subject

pytestmark = pytest.mark.once

EPS = 0.1


def subject_of(model, x, attack, y=None, straight_through=None, **settings):
    """A `Subject` whose images are all classified right."""
    artifact = open_artifact("m", model, "m")
    artifact = dataclasses.replace(artifact, straight_through=straight_through)
    logits = artifact.predict(x)
    y = logits.argmax(-1) if y is None else y
    settings = {"images": len(x), "seed": 0, "batch_size": 250, **settings}
    return Subject(artifact, x, y, classes=logits.shape[-1], given=attack, **settings)


def two_logits(value):
    """A classifier that says class 0 where `value` of an input is negative, `(batch,)`."""
    return lambda x: tf.stack([-value(x), value(x)], -1)


def middle(count=20, inputs=50):
    return np.full((count, inputs), 0.5, np.float32)


def mean_move(x):
    """How far an input is from the middle towards the corner, in units of eps."""
    return tf.reduce_mean(x - 0.5, -1) / EPS


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 100), st.integers(100, 200), st.floats(0, 5), st.floats(5, 50))
def test_grade_is_never_milder_for_more(count, images, warning, suspicious):
    verdicts = [grade(n, images, warning, suspicious) for n in (count, count + 1)]
    assert VERDICTS.index(verdicts[0]) <= VERDICTS.index(verdicts[1])
    assert grade(2, images, 0, 0) == "ok"


def test_gradients_counts_the_images_that_float32_rounds_away():
    x = np.float32([[0.2]] * 3 + [[0.5]] * 5)  # margins 40 and 400
    model = two_logits(lambda x: -500.0 * (x[:, 0] - 0.12))
    numbers = check_gradients(subject_of(model, x, FGSM(EPS)))["numbers"]
    assert numbers["cross_entropy_without_gradient_share"] == 5 / 8
    assert numbers["log_odds_without_gradient_share"] == 0
    assert numbers["margin_above_17_share"] == 1
    assert numbers["median_logit_margin"] == pytest.approx(380)
    assert numbers["largest_logit"] == pytest.approx(190)


def test_gradients_that_are_not_finite_are_none():
    def value(x):  # an infinite gradient at zero
        return tf.sqrt(tf.abs(x[:, 0] - 0.5)) - 1.0

    found = check_gradients(subject_of(two_logits(value), middle(), FGSM(EPS)))
    assert found["verdict"] == "suspicious"
    assert found["numbers"]["log_odds_without_gradient_share"] == 1


@pytest.mark.parametrize(
    ("gradient", "verdict", "share"),
    [(1.0, "ok", 0), (0.0, "suspicious", 1), (-1.0, "suspicious", 1)],
)
def test_differences_tell_a_right_gradient_from_a_wrong_one(gradient, verdict, share):
    @tf.custom_gradient
    def pretend(x):
        return x, lambda upstream: gradient * upstream

    model = two_logits(lambda x: mean_move(pretend(x)) - 2.0)
    found = check_differences(subject_of(model, middle(), PGD(EPS)))
    assert found["verdict"] == verdict
    assert found["numbers"]["not_explained_share"] == share
    # 1 - sum (c - p)^2 / sum c^2 with p = gradient * c.
    for explained in found["numbers"]["gradient_explains"].values():
        assert explained == pytest.approx(1 - (1 - gradient) ** 2, abs=1e-3)


def test_differences_accept_fine_steps_with_straight_through_gradients():
    def rounded(x):
        return x + tf.stop_gradient(tf.round(x * 255) / 255 - x)

    model = two_logits(lambda x: mean_move(rounded(x)) - 2.0)
    found = check_differences(subject_of(model, middle() + 0.001, PGD(EPS)))
    assert found["verdict"] == "ok"
    explained = found["numbers"]["gradient_explains"]
    assert explained["steps of 1 eps"] > 0.9 > 0.1 > explained["steps of 0.01 eps"]


def test_differences_see_a_staircase():
    def value(x):
        return tf.stop_gradient(tf.round(mean_move(x) / 10)) + 0.0 * mean_move(x) - 2.0

    found = check_differences(subject_of(two_logits(value), middle(), PGD(EPS)))
    assert found["numbers"]["outputs_constant_share"] == 1
    assert "do not change at all" in found["meaning"]


def test_losses_agree_on_a_linear_model(inside):
    model, x, y, radius = inside()
    found = check_losses(subject_of(model, x, PGD(0.02), y))
    assert found["verdict"] == "ok"
    # Two classes have no DLR loss.
    expected = dict.fromkeys(["cross-entropy", "log odds", "margin"], (radius > 0.02).mean())
    assert found["numbers"]["accuracy"] == pytest.approx(expected)


def test_losses_name_one_that_is_worse(inside):
    model, x, y, radius = inside()
    backwards = PGD(0.02, loss=lambda y, logits: -losses.margin(y, logits))
    found = check_losses(subject_of(model, x, backwards, y))
    missed = 100 * (radius <= 0.02).mean()
    # Random starts break a few even so.
    assert missed - 10 < found["numbers"]["loss_given_misses_points"] <= missed
    assert found["verdict"] == "suspicious" and "several losses" in found["meaning"]


def trap(at, depth=-0.5):
    """A ridge that small steps stay on, and class 1 behind it, from 0.7 eps on."""

    def value(x):
        moved = tf.abs(mean_move(x))
        ridge = depth - tf.abs(moved - at)
        return tf.where(moved > 0.7, moved, ridge)

    return two_logits(value)


def test_single_step_that_leaps_over_what_stops_many():
    found = check_single_step(subject_of(trap(0.2), middle() + 0.002, PGD(EPS)))
    assert found["verdict"] == "suspicious"
    assert found["numbers"]["accuracy"] == {"FGSM": 0.0, "PGD-20": 1.0}
    assert found["numbers"]["only_fgsm_share"] == 1


def test_single_step_is_weaker_on_a_linear_model(inside):
    model, x, y, radius = inside()
    found = check_single_step(subject_of(model, x, PGD(0.02), y))
    assert found["verdict"] == "ok"
    assert found["numbers"]["accuracy"]["FGSM"] == (radius > 0.02).mean()


def test_steps_find_an_attack_that_never_reaches_the_edge(inside):
    model, x, y, radius = inside()
    short = PGD(0.05, steps=5, step_size=0.001, random_start=False)
    found = check_steps(subject_of(model, x, short, y))
    numbers = found["numbers"]
    assert numbers["accuracy"][f"given: {short.name}"] == (radius > 0.005).mean()
    assert numbers["accuracy"]["PGD-100"] == (radius > 0.05).mean()
    assert found["verdict"] == "warning"
    assert "too weak" in found["meaning"] and "at least 5 steps" in found["meaning"]


def test_steps_of_an_attack_that_arrived(inside):
    model, x, y, _ = inside()
    found = check_steps(subject_of(model, x, PGD(0.02, steps=10), y))
    assert found["verdict"] == "ok" and "has arrived" in found["meaning"]


def test_steps_that_grow_weaker_are_suspicious():
    # Two of five steps, eps / 2 each, leap over the ridge; a hundred small ones stay on it.
    found = check_steps(subject_of(trap(0.6), middle() + 0.002, Square(EPS, queries=1)))
    accuracy = found["numbers"]["accuracy"]
    assert accuracy["PGD-5"] < 0.5 and accuracy["PGD-100"] == 1
    assert found["verdict"] == "suspicious" and "fewer images" in found["meaning"]


def test_restarts_on_a_rugged_loss():
    def value(x):  # class 1 in a narrow hole that a start must fall into
        return tf.where(tf.abs(x[:, 0] - 0.55) < 0.01, 1.0, -1.0 + 1e-3 * x[:, 0])

    found = check_restarts(subject_of(two_logits(value), middle(60, 1), PGD(EPS)))
    numbers = found["numbers"]
    assert numbers["accuracy"]["5 starts"] < numbers["accuracy"]["1 start"]
    assert found["verdict"] != "ok" and "depends on where it begins" in found["meaning"]


def test_radius_flags_a_model_that_no_change_moves():
    found = check_radius(subject_of(two_logits(lambda x: 0.0 * x[:, 0] - 1.0), middle(), PGD(EPS)))
    assert found["verdict"] == "suspicious"
    assert set(found["numbers"]["accuracy"].values()) == {1.0}
    assert found["numbers"]["standing_at_no_limit_share"] == 1


def test_radius_flags_a_curve_that_rises():
    def value(x):  # class 1 only in the corner at eps, which longer steps leap over
        return tf.where(tf.abs(mean_move(x) - 1.0) < 0.02, 1.0, -9.0 + mean_move(x))

    found = check_radius(subject_of(two_logits(value), middle(), PGD(EPS)))
    accuracy = found["numbers"]["accuracy"]
    assert accuracy["eps 0.1"] == 0 and accuracy["eps 0.2"] > 0.5
    assert found["numbers"]["rise_with_eps_points"] == pytest.approx(100 * accuracy["eps 0.2"])
    assert "the attack gets lost" in found["meaning"]


def test_radius_flags_a_jump_at_the_image():
    def value(x):
        return tf.where(tf.reduce_max(tf.abs(x - 0.5), -1) > 1e-5, 1.0, -1.0) + 0.0 * x[:, 0]

    found = check_radius(subject_of(two_logits(value), middle(), PGD(EPS)))
    assert found["numbers"]["lost_at_a_thousandth_of_eps_points"] == 100
    assert "the outputs jump" in found["meaning"]


def test_radius_ends_at_the_box():
    found = check_radius(subject_of(two_logits(lambda x: mean_move(x) - 1), middle(), PGD(0.6)))
    assert list(found["numbers"]["accuracy"]) == [
        "clean", "eps 0.0006", "eps 0.15", "eps 0.3", "eps 0.6", "no limit",
    ]  # fmt: skip


def hidden(inside):
    """A linear model with a gradient of zero, and the radii at which its images fall."""
    model, x, y, radius = inside()
    return (lambda x: tf.stop_gradient(model(x)) + 0.0 * model(x)), model, x, y, radius


def test_black_box_beats_a_hidden_gradient(inside):
    blind, _, x, y, radius = hidden(inside)
    subject = subject_of(blind, x, PGD(0.05), y)
    subject.broken(subject.pgd())
    found = check_black_box(subject)
    assert found["verdict"] == "suspicious"
    accuracy = found["numbers"]["accuracy"]
    assert 0 <= accuracy["Square-300"] - (radius > 0.05).mean() < 0.1
    assert accuracy["gradient attacks together"] > accuracy["Square-300"] + 0.3


def test_random_points_beat_a_gradient_that_misleads(inside):
    model, x, y, _ = inside()

    @tf.custom_gradient
    def away(x):
        return (
            model(x),
            lambda upstream: (
                -tf.linalg.matmul(upstream, tf.constant(model.weights), transpose_b=True)
            ),
        )

    subject = subject_of(away, x, PGD(0.1, random_start=False), y)
    subject.broken(PGD(0.1, random_start=False, steps=20))
    found = check_random(subject)
    assert found["verdict"] == "suspicious" and "worse than guessing" in found["meaning"]


def test_outside_views_agree_with_gradients_on_a_linear_model(inside):
    model, x, y, radius = inside()
    subject = subject_of(model, x, PGD(0.02), y)
    subject.broken(subject.pgd())
    for check in (check_black_box, check_random):
        found = check(subject)
        assert found["verdict"] == "ok"
        together = found["numbers"]["accuracy"]["gradient attacks together"]
        assert together == (radius > 0.02).mean()


def test_larger_radii_do_not_count_as_white_box(inside):
    model, x, y, radius = inside()
    subject = subject_of(model, x, PGD(0.02), y)
    subject.broken(subject.pgd(eps=0.5))
    assert not subject.white_box().any()
    subject.broken(subject.pgd())
    assert subject.white_box().mean() == (radius <= 0.02).mean()


def test_straight_through_reveals_a_hidden_gradient(inside):
    blind, model, x, y, radius = hidden(inside)
    subject = subject_of(blind, x, PGD(0.05), y, straight_through=model)
    subject.broken(subject.pgd())
    found = check_straight_through(subject)
    assert found["verdict"] == "suspicious"
    accuracy = found["numbers"]["accuracy"]
    assert accuracy["PGD-20 straight through"] == (radius > 0.05).mean()


def test_straight_through_without_rounding(inside):
    model, x, y, _ = inside()
    found = check_straight_through(subject_of(model, x, PGD(0.05), y))
    assert found["verdict"] == "ok" and found["numbers"] == {}


def test_randomness_sees_tensorflow_and_numpy(inside):
    model, x, y, _ = inside()
    generator = np.random.default_rng(0)

    def numpy_noise(x):  # frozen once compiled
        return model(x) + generator.normal(size=2).astype("float32")

    for noise in (lambda x: model(x) + tf.random.normal([2]), numpy_noise):
        found = check_randomness(subject_of(noise, x, PGD(0.02, steps=2), y))
        assert found["verdict"] == "suspicious", noise
        assert found["numbers"]["labels_change_share"] > 0.05


def test_randomness_too_small_to_change_labels_is_a_warning():
    def model(x):
        return tf.stack([mean_move(x) - 3, 1e-2 * tf.random.uniform(tf.shape(x)[:1])], -1)

    found = check_randomness(subject_of(model, middle(), PGD(EPS, steps=2)))
    assert found["verdict"] == "warning"
    assert 0 < found["numbers"]["largest_logit_change"] <= 1e-2


def test_checks_of_gradients_are_left_out_without_them(inside, tflite_file):
    model, x, y, _ = inside(count=5)
    subject = subject_of(tflite_file(model, 12), x, FGSM(0.02), y)
    for check in (
        check_gradients,
        check_differences,
        check_losses,
        check_single_step,
        check_steps,
        check_restarts,
        check_straight_through,
    ):
        with pytest.raises(LeftOut, match=r"A \.tflite file has no gradients"):
            check(subject)
