"""Carlini and Wagner's attack finds the nearest boundary of linear models, bounds included."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import CarliniWagner

FEW = {"steps": 100, "search_steps": 5}


def nearest_in_box(x, normal, rise, bounds=(0.0, 1.0)):
    """`|r|` of the smallest r with `normal @ r = rise`, x + r in bounds: r is a clipped ray."""
    low, high = 0.0, 1e6

    def step(length):
        return np.clip(length * normal, bounds[0] - x, bounds[1] - x)

    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if normal @ step(middle) >= rise else (middle, high)
    return np.linalg.norm(step(high))


def distances(x, x_adv):
    return np.linalg.norm((x_adv.numpy().astype("float64") - x).reshape(len(x), -1), axis=1)


@pytest.mark.parametrize("spread", [0.1, 0.5])
def test_nearest_point_of_a_linear_model(linear, rng, spread):
    """Far from the bounds |w.x + b| / |w|; with half of the pixels black or white further."""
    model = linear(30)
    model.bias -= (model(np.full((1, 30), 0.5, "float32")).numpy()[0]).astype("float32")
    x = np.clip(0.5 + spread * rng.normal(size=(8, 30)) * 2, 0, 1).astype("float32")
    logits = model(x).numpy().astype("float64")
    y = np.argmax(logits, axis=1)
    x_adv = CarliniWagner(steps=200, search_steps=6)(model, x, y)
    assert np.all(np.argmax(model(x_adv), axis=1) != y)
    normal = model.weights[:, 1] - model.weights[:, 0]
    rise = logits[:, 1] - logits[:, 0]
    exact = [nearest_in_box(row, -np.sign(r) * normal, abs(r)) for row, r in zip(x, rise)]
    np.testing.assert_allclose(distances(x, x_adv), exact, rtol=0.02, atol=5e-4)


def test_black_and_white_images_move_within_few_steps(linear):
    """Where a tanh that only approaches the bounds is flat."""
    model = linear(20)
    normal = model.weights[:, 1] - model.weights[:, 0]
    # Each pixel at the bound from which it must leave for class 1.
    x = (normal < 0).astype("float32")[None]
    model.bias -= model(x).numpy()[0] - np.float32([2, 0])
    rise = float(model(x)[0, 0] - model(x)[0, 1])
    x_adv = CarliniWagner(steps=100, search_steps=6)(model, x, [0])
    exact = nearest_in_box(x[0], normal, rise)
    np.testing.assert_allclose(distances(x, x_adv), exact, rtol=0.03)


def test_targets_are_reached_with_confidence(linear, rng):
    model = linear(30, classes=4)
    x = rng.uniform(0.3, 0.7, size=(6, 30)).astype("float32")
    y = np.argmax(model(x), axis=1)
    target = (y + 1) % 4
    near = CarliniWagner(**FEW, targeted=True)(model, x, target)
    far = CarliniWagner(**FEW, targeted=True, confidence=2.0)(model, x, target)
    assert np.all(np.argmax(model(near), axis=1) == target)
    assert np.all(-kr.losses.margin(target, model(far)).numpy() >= 2.0 - 1e-5)
    assert np.all(distances(x, near) < distances(x, far))


def test_beats_single_steps_on_a_network(cnn, blobs):
    model, (x, y) = cnn(), blobs(24)
    y = np.argmax(model(x), axis=1)
    found = CarliniWagner(**FEW)(model, x, y)
    assert np.all(np.argmax(model(found), axis=1) != y)
    for eps in np.quantile(distances(x, found), [0.25, 0.5]):
        fast = kr.attacks.FGSM(eps, norm="l2")(model, x, y)
        broken = np.mean(np.argmax(model(fast), axis=1) != y)
        assert broken <= np.mean(distances(x, found) <= eps) + 1e-6


def test_ending_early_loses_little(cnn, blobs):
    model, (x, _) = cnn(), blobs(16)
    y = np.argmax(model(x), axis=1)
    early = distances(x, CarliniWagner(**FEW)(model, x, y))
    full = distances(x, CarliniWagner(**FEW, abort_early=False)(model, x, y))
    assert np.median(early) <= 1.02 * np.median(full)


@pytest.mark.once
def test_adams_first_step_is_the_learning_rate():
    """In the units of the tanh's argument, up or down."""
    weights, x, seen = np.float32([[1, -1], [-2, 2]]), tf.constant([[0.6, 0.4]]), []

    def model(points):
        seen.append(np.arctanh((2 * np.float64(points)[0] - 1) / 1.1))
        return points @ weights

    attack = CarliniWagner(steps=10, search_steps=1, learning_rate=0.05)
    attack.run(model, x, tf.constant([1]), tf.constant([0, 0]), float("inf"))
    moved = next(point for point in seen if np.any(point != seen[0])) - seen[0]
    np.testing.assert_allclose(moved, [0.05, -0.05], atol=1e-5)


@pytest.mark.once
@pytest.mark.parametrize("kind", [CarliniWagner, kr.attacks.ElasticNet])
def test_the_search_starts_with_the_first_weight(kind, linear):
    weights = []

    class Spied(kind):
        def _step(self, goal, variables, x, weight, taken):
            weights.append(float(weight[0]))
            return super()._step(goal, variables, x, weight, taken)

    model, x = linear(6), np.full((1, 6), 0.5, "float32")
    model.bias += np.float32([1e6, 0])  # Out of reach: the weight grows.
    attack = Spied(steps=1, search_steps=3, initial_const=0.25)
    attack.run(model, tf.constant(x), tf.constant([0]), tf.constant([0, 0]), float("inf"))
    assert weights == [0.25, 2.5, 25.0]


def test_same_result_in_other_units(linear, rng):
    model = linear(12)
    x = rng.uniform(size=(4, 12)).astype("float32")
    y = np.argmax(model(x), axis=1)
    unit = CarliniWagner(**FEW)(model, x, y)
    pixels = CarliniWagner(**FEW, bounds=(0.0, 256.0))(lambda p: model(p / 256), x * 256, y)
    np.testing.assert_allclose(pixels / 256, unit, atol=1e-4)


def test_rows_without_an_example_come_back_as_they_were(linear, rng):
    model = linear(12)
    model.bias += np.float32([1e3, 0])
    x = rng.uniform(size=(4, 12)).astype("float32")
    np.testing.assert_array_equal(CarliniWagner(**FEW)(model, x, [0, 0, 1, 1]), x)


def test_runs_inside_a_tf_function_with_soft_labels(linear, rng):
    model = linear(12, classes=3)
    x = rng.uniform(size=(4, 12)).astype("float32")
    y = np.argmax(model(x), axis=1)
    attack = CarliniWagner(steps=40, search_steps=3)
    soft = 0.8 * np.eye(3, dtype="float32")[y] + 0.2 / 3
    inside = tf.function(lambda x, y: attack(model, x, y))(tf.constant(x), tf.constant(soft))
    np.testing.assert_allclose(inside, attack(model, x, y), atol=1e-5)


_MODELS = {}


@pytest.mark.once
@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(
    eps=st.one_of(st.none(), st.just(0.0), st.floats(1e-3, 2.0)),
    kind=st.sampled_from([((0.0, 1.0), False), ((-3.0, 5.0), True)]),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    seed=st.integers(0, 2**50),
)
def test_stays_in_ball_and_bounds(linear, eps, kind, dtype, seed):
    (bounds, targeted), generator = kind, np.random.default_rng(seed)
    # One model for all: the attack is traced once for each kind.
    model = _MODELS.setdefault(0, linear(12, classes=3))
    x = generator.uniform(*bounds, size=(4, 3, 4)).astype(dtype)
    y = generator.integers(0, 3, size=4)
    attack = CarliniWagner(eps, steps=20, search_steps=3, targeted=targeted, bounds=bounds)
    x_adv = attack(model, x, y, seed=seed)
    delta = x_adv.numpy().astype("float64") - x.astype("float32")
    assert np.all(np.isfinite(x_adv)) and x_adv.dtype == tf.float32
    assert np.all((x_adv >= bounds[0]) & (x_adv <= bounds[1]))
    done = (np.argmax(model(x), axis=1) == y) == targeted
    after = (np.argmax(model(x_adv), axis=1) == y) == targeted
    assert np.all(after >= done)
    moved = np.any(delta != 0, axis=(1, 2))
    assert np.all(after[moved])
    if eps is not None:
        assert np.all(np.linalg.norm(delta.reshape(4, -1), axis=1) <= eps + 1e-6)
    if eps == 0:
        np.testing.assert_array_equal(x_adv, x.astype("float32"))
    np.testing.assert_array_equal(x_adv, attack(model, x, y, seed=seed))


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ({"norm": "linf"}, ValueError, "CarliniWagner works in the norms 'l2', got norm='linf'"),
        ({"eps": -1.0}, ValueError, "`eps` must be a finite number >= 0"),
        ({"steps": 0}, ValueError, "`steps` must be an int >= 1, got steps=0"),
        ({"search_steps": 1.5}, ValueError, "`search_steps` must be an int >= 1"),
        ({"learning_rate": 0}, ValueError, "`learning_rate` must be a finite number > 0, got"),
        ({"initial_const": np.nan}, ValueError, "`initial_const` must be a finite number > 0"),
        ({"confidence": -1}, ValueError, "`confidence` must be a finite number >= 0, got"),
        ({"targeted": 1}, TypeError, "`targeted` must be True or False, got targeted=1"),
        ({"abort_early": None}, TypeError, "`abort_early` must be True or False, got"),
    ],
)
def test_wrong_settings_are_refused(setting, error, message):
    with pytest.raises(error, match=message):
        CarliniWagner(**setting)


def test_is_a_search_with_a_name():
    assert CarliniWagner.searches and CarliniWagner().name == "CW l2"
    assert CarliniWagner(targeted=True).name == "CW l2 targeted"
