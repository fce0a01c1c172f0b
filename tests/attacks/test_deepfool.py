"""DeepFool: the closed form on linear models, inside the bounds, on any network."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf

from keras_robust.attacks import DeepFool

ORDER = {"linf": np.inf, "l2": 2}
DUAL = {"linf": 1, "l2": 2}


def sizes(x_adv, x, norm):
    delta = np.float64(x_adv) - np.float64(x)
    return np.linalg.norm(delta.reshape(len(x), -1), ORDER[norm], axis=1)


def wrong(model, x, y):
    return np.argmax(model(x), axis=1) != y


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("relaxation", "most"), [(1.0, 1.0201), (0.5, 1.004)])
def test_distance_to_the_boundaries_of_a_linear_model(linear, rng, norm, relaxation, most):
    model = linear(40, classes=4)
    x = rng.uniform(size=(16, 40)).astype("float32")
    y = np.argmax(model(x), axis=1)
    attack = DeepFool(norm=norm, relaxation=relaxation, bounds=(-100.0, 100.0))
    x_adv = attack(model, x, y)
    assert np.all(wrong(model, x_adv, y))
    logits = np.float64(model(x))
    for row, found in enumerate(sizes(x_adv, x, norm)):
        others = [other for other in range(4) if other != y[row]]
        normals = np.float64(model.weights[:, others] - model.weights[:, y[row], None])
        gaps = logits[row, y[row]] - logits[row, others]
        exact = np.min(gaps / np.linalg.norm(normals, DUAL[norm], axis=0))
        assert exact * (1 - 1e-4) <= found <= exact * most


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("overshoot", [0.0, 0.2])
def test_a_whole_step_goes_beyond_by_the_overshoot(linear, rng, norm, overshoot):
    model, x = linear(40), rng.uniform(size=(8, 40)).astype("float32")
    y = np.argmax(model(x), axis=1)
    attack = DeepFool(norm=norm, overshoot=overshoot, relaxation=1.0, bounds=(-100.0, 100.0))
    gap = np.abs(np.subtract(*np.float64(model(x)).T))
    exact = gap / np.linalg.norm(np.subtract(*model.weights.T), DUAL[norm])
    found = sizes(attack(model, x, y), x, norm)
    np.testing.assert_allclose(found, (1 + overshoot) * exact, rtol=2e-3)


def test_bounds_do_not_take_the_step_back(rng):
    """Half of the entries cannot move: the plain step clipped would end half way."""
    weights = np.stack([-np.ones(20), np.ones(20)], axis=1).astype("float32")
    bias = np.array([24.0, 0.0], "float32")
    x = np.full((1, 20), 0.4, "float32")
    x[:, :10] = 1.0
    x_adv = DeepFool(norm="linf")(lambda x: x @ weights + bias, x, [1]).numpy()
    # The sum of x is 14 and has to fall to 12: every entry gives 0.1.
    np.testing.assert_allclose(x - x_adv, 0.1, rtol=0.01)
    x_adv = DeepFool(norm="linf")(lambda x: x @ weights + [36.0, 0.0], x, [0]).numpy()
    # To 18, by the ten that have room.
    np.testing.assert_allclose(x_adv[:, 10:], 0.8, rtol=0.01)
    np.testing.assert_array_equal(x_adv[:, :10], x[:, :10])


def test_only_the_candidates_are_headed_for(rng):
    """The nearest boundary is that to the least likely class, whose gradient is largest."""
    weights = tf.constant([[0.0, 0.1, 50.0]])
    bias = tf.constant([1.0, 0.9, 0.0])

    def model(x):
        return x @ weights + bias

    x = np.zeros((1, 1), "float32")
    near = DeepFool(bounds=(-9.0, 9.0))(model, x, [0]).numpy()
    assert near[0, 0] == pytest.approx(1 / 50, rel=0.01)
    far = DeepFool(bounds=(-9.0, 9.0), candidates=2, relaxation=1.0)(model, x, [0]).numpy()
    assert far[0, 0] == pytest.approx(1.0, rel=0.021)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fools_a_network_and_shorter_steps_do_it_with_less(cnn, blobs, norm):
    model, (x, _) = cnn(), blobs(48)
    y = np.argmax(model(x), axis=1)
    half = DeepFool(norm=norm)(model, x, y)
    whole = DeepFool(norm=norm, relaxation=1.0)(model, x, y)
    assert np.all(wrong(model, half, y)) and np.all(wrong(model, whole, y))
    assert sizes(half, x, norm).mean() < sizes(whole, x, norm).mean()
    # What it found is no accident of a direction: most of it is needed.
    assert wrong(model, x + 0.9 * (half - x), y).mean() < 0.1


def test_a_radius_keeps_the_rows_within_it_and_no_others(linear, rng):
    model = linear(40, classes=3)
    x = rng.uniform(size=(16, 40)).astype("float32")
    y = np.argmax(model(x), axis=1)
    free = DeepFool()(model, x, y).numpy()
    eps = float(np.median(sizes(free, x, "l2")))
    x_adv = DeepFool(eps)(model, x, y).numpy()
    near = sizes(free, x, "l2") <= eps
    assert 0 < near.sum() < 16
    np.testing.assert_array_equal(x_adv[near], free[near])
    np.testing.assert_array_equal(x_adv[~near], x[~near])


def test_rows_that_cannot_be_fooled_or_are_wrong_come_back_as_they_are(linear, rng):
    model = linear(20, classes=2)
    x = rng.uniform(size=(4, 20)).astype("float32")
    y = np.argmax(model(x), axis=1)
    np.testing.assert_array_equal(DeepFool()(model, x, 1 - y), x)
    narrow = DeepFool(bounds=(float(x.min()) - 1e-3, float(x.max()) + 1e-3), steps=1)
    far = [0.0, 1000.0]
    np.testing.assert_array_equal(narrow(lambda x: model(x) + far, x, [1] * 4), x)
    flat = DeepFool(steps=5)(lambda x: tf.stack([2 + 0 * x[:, 0], 0 * x[:, 1]], 1), x, [0] * 4)
    np.testing.assert_array_equal(flat, x)


@pytest.mark.once
@hypothesis.settings(max_examples=10, deadline=None)
@hypothesis.given(
    norm=st.sampled_from(["linf", "l2"]),
    eps=st.one_of(st.none(), st.just(0.0), st.floats(1e-3, 3.0)),
    bounds=st.sampled_from([(0.0, 1.0), (-3.0, 5.0)]),
    candidates=st.integers(2, 4),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    seed=st.integers(0, 2**50),
)
def test_stays_in_ball_and_bounds(linear, norm, eps, bounds, candidates, dtype, seed):
    generator = np.random.default_rng(seed)
    model = linear(12, classes=3, seed=seed % 1000)
    x = generator.uniform(*bounds, size=(4, 3, 4)).astype(dtype)
    y = generator.integers(0, 3, size=4)
    attack = DeepFool(eps, norm=norm, bounds=bounds, candidates=candidates, steps=8)
    x_adv = attack(model, x, y, seed=seed).numpy()
    assert x_adv.dtype == np.float32 and x_adv.shape == x.shape
    x = x.astype("float32")
    assert np.all(np.isfinite(x_adv))
    assert sizes(x_adv, x, norm).max() <= (np.inf if eps is None else eps)
    assert x_adv.min() >= bounds[0] and x_adv.max() <= bounds[1]
    assert np.all(wrong(model, x_adv, y) >= wrong(model, x, y))
    still = ~wrong(model, x_adv, y)
    np.testing.assert_array_equal(x_adv[still], x[still])
    np.testing.assert_array_equal(attack(model, x, y, seed=seed), x_adv)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "l1"}, "DeepFool works in the norms 'linf', 'l2', got norm='l1'"),
        ({"steps": 0}, "`steps` must be an int >= 1, got steps=0"),
        ({"candidates": 1}, "`candidates` must be an int >= 2, got 1"),
        ({"overshoot": -0.1}, r"`overshoot` must be in \[0, 1\), got overshoot=-0.1"),
        ({"relaxation": 0.0}, r"`relaxation` must be in \(0, 1\], got relaxation=0.0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DeepFool(**settings)
