"""Smallest perturbations against the distances of a linear model."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.analysis import Distortions, minimum_distortion, random_targets

pytestmark = pytest.mark.once

WEIGHTS = np.array([[3.0, -1.0], [-4.0, 1.0]])  # class 1 - class 0 has the normal (-4, 5)


def classifier(x):
    return tf.matmul(x - 0.5, tf.constant(WEIGHTS, tf.float32))


def distance(x, order):
    """Distance to the decision boundary, in the dual norm of its normal."""
    normal = WEIGHTS[:, 1] - WEIGHTS[:, 0]
    return np.abs((x - 0.5) @ normal) / np.linalg.norm(normal, order)


@pytest.fixture
def data(rng):
    x = rng.uniform(0.35, 0.65, size=(25, 2)).astype("float32")
    return x, classifier(x).numpy().argmax(-1)


@pytest.mark.parametrize(
    ("attack", "order"),
    [
        (kr.attacks.LBFGS(), 2),
        (kr.attacks.DeepFool(norm="l2"), 2),
        (kr.attacks.DeepFool(norm="linf"), 1),
        (kr.attacks.FAB(norm="l2"), 2),
    ],
)
def test_a_linear_models_distances_are_found(data, attack, order):
    x, y = data
    found = minimum_distortion(classifier, x, y, attack, batch_size=10)
    exact = distance(x.astype(np.float64), order)
    assert found.correct.all() and found.found.all()
    assert np.all(found.distance >= exact * (1 - 1e-5))
    np.testing.assert_allclose(found.distance, exact, rtol=0.06, atol=1e-4)
    if order == 2:
        np.testing.assert_allclose(found.rms, found.distance / np.sqrt(2), rtol=1e-9)
        assert found.mean_rms == pytest.approx(found.rms.mean())
    assert np.all(classifier(found.x_adv).numpy().argmax(-1) != y)


def test_inputs_missed_to_begin_with_stay_and_count_as_zero(data):
    x, y = data
    wrong = np.arange(len(y)) % 5 == 0
    found = minimum_distortion(classifier, x, np.where(wrong, 1 - y, y), kr.attacks.DeepFool())
    np.testing.assert_array_equal(found.correct, ~wrong)
    np.testing.assert_array_equal(found.x_adv[wrong], x[wrong])
    assert not found.distance[wrong].any() and found.distance[~wrong].all()
    assert found.mean == pytest.approx(found.distance[~wrong].mean())
    assert found.accuracy(0.0)[0] == pytest.approx(np.mean(~wrong))


def test_what_withstands_is_infinitely_far(data):
    x, _ = data

    def constant(x):
        return tf.stack([3.0 + 0.0 * x[:, 0], 0.0 * x[:, 0]], axis=1)

    found = minimum_distortion(constant, x, np.zeros(len(x), int), kr.attacks.DeepFool(steps=3))
    assert not found.found.any()
    assert np.isinf(found.distance).all() and found.mean_rms == np.inf
    np.testing.assert_array_equal(found.x_adv, x)
    assert found.accuracy([0.1, 100.0]).tolist() == [1.0, 1.0]


def test_the_curve_counts_what_is_farther_than_eps():
    right = np.array([True, True, True, False])
    found = np.array([True, True, False, True])
    far = np.array([0.5, 1.5, np.inf, 0.0])
    result = Distortions("x", "l2", np.zeros((4, 1)), right, found, far, far)
    assert result.accuracy([0, 0.5, 1, 2]).tolist() == [0.75, 0.5, 0.5, 0.25]
    assert result.median == 1.5
    assert "75.0% right, of these 66.7% broken" in repr(result)


def test_chosen_targets_are_reached_at_their_own_distance(rng):
    """Three classes in the plane: the boundary to each has its own distance."""
    normals = np.array([[2.0, 0.0], [-1.0, 2.0], [-1.0, -2.0]])
    x = np.tile(np.float32([[0.6, 0.52]]), (2, 1))

    def model(x):
        return tf.matmul(x - 0.5, tf.constant(normals.T, tf.float32))

    found = minimum_distortion(model, x, [0, 0], targets=[1, 2])
    np.testing.assert_array_equal(model(found.x_adv).numpy().argmax(-1), [1, 2])
    ways = normals[0] - normals[1:]
    exact = ways @ (x[0] - 0.5) / np.linalg.norm(ways, axis=1)
    np.testing.assert_allclose(found.distance, exact, rtol=0.02)
    assert found.distance[1] > found.distance[0]


def test_each_batch_has_a_seed_of_its_own(data):
    seeds = []

    class Still:
        name, norm, eps, bounds, searches, targeted = "still", "l2", None, (0.0, 1.0), True, False

        def __call__(self, model, x, y, seed=0):
            seeds.append(seed)
            return tf.constant(x)

    minimum_distortion(classifier, *data, Still(), batch_size=10, seed=5)
    assert seeds == [5, 6, 7]


def test_random_targets_are_wrong_classes_and_repeat():
    y = np.arange(300) % 3
    targets = random_targets(y, 3, seed=4)
    assert np.all(targets != y) and set(targets) == {0, 1, 2}
    np.testing.assert_array_equal(targets, random_targets(y, 3, seed=4))
    assert np.any(targets != random_targets(y, 3, seed=5))
    assert np.mean((targets - y) % 3 == 1) == pytest.approx(0.5, abs=0.1)


def test_wrong_targets_are_refused(data):
    x, y = data
    with pytest.raises(ValueError, match="`targets` must differ from the labels, but 25 are"):
        minimum_distortion(classifier, x, y, targets=y)
    with pytest.raises(ValueError, match=r"`targets` must be a class number for each of the 25"):
        minimum_distortion(classifier, x, y, targets=[1])
    with pytest.raises(ValueError, match="`targets` needs a targeted attack"):
        minimum_distortion(classifier, x, y, kr.attacks.LBFGS(), targets=1 - y)
    with pytest.raises(ValueError, match="`attack` is targeted.*needs `targets`"):
        minimum_distortion(classifier, x, y, kr.attacks.LBFGS(targeted=True))


def test_other_attacks_are_refused(data):
    x, y = data
    with pytest.raises(TypeError, match=r"`attack` must seek the smallest perturbation.*PGD"):
        minimum_distortion(classifier, x, y, kr.attacks.PGD(0.1))
    with pytest.raises(ValueError, match=r"`attack` stops at eps=0.1"):
        minimum_distortion(classifier, x, y, kr.attacks.DeepFool(eps=0.1))
    with pytest.raises(ValueError, match="`x` and `y` must have the same length, got 25 and 3"):
        minimum_distortion(classifier, x, y[:3], kr.attacks.DeepFool())
