"""Square: closed forms on linear models, who is asked, and what always holds."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_robust as kr
from keras_robust.attacks._square_search import Bumps, Frame, _shrink, bumps_of
from keras_robust.attacks._threat import Ball, size

Square = kr.attacks.Square


def distances(x_adv, x, norm):
    delta = (np.asarray(x_adv, "float64") - x).reshape(len(x), -1)
    return np.linalg.norm(delta, {"linf": np.inf, "l2": 2, "l1": 1}[norm], axis=1)


def never_fooled(slope):
    """Logits that follow `slope` and never change class."""
    return lambda x: tf.stack([100.0 + 0 * x[:, 0, 0, 0], tf.reduce_sum(x * slope, [1, 2, 3])], 1)


def test_reaches_the_corner_of_a_linear_model(rng):
    slope = rng.normal(size=(5, 5, 2)).astype("float32")
    x = rng.uniform(0.3, 0.7, size=(2, 5, 5, 2)).astype("float32")
    x_adv = Square(0.2, queries=3000)(never_fooled(slope), x, [0, 0])
    np.testing.assert_allclose(x_adv, x + 0.2 * np.sign(slope), atol=1e-6)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_comes_near_the_maximum_of_a_linear_model(rng, norm):
    slope = rng.normal(size=(6, 6, 1)).astype("float32")
    x = rng.uniform(0.4, 0.6, size=(4, 6, 6, 1)).astype("float32")
    x_adv = Square(0.3, norm=norm, queries=2000)(never_fooled(slope), x, [0] * 4)
    gain = np.sum((x_adv - x) * slope, axis=(1, 2, 3))
    best = 0.3 * (np.linalg.norm(slope) if norm == "l2" else np.abs(slope).max())
    # Bumps are wider than the single pixel that is best in l1.
    assert gain.min() > (0.7 if norm == "l2" else 0.4) * best


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_beats_noise_of_the_same_size(cnn, blobs, norm):
    model, (x, y) = cnn(), blobs(48)
    y = np.argmax(model(x), axis=1)
    eps = {"linf": 0.1, "l2": 0.5, "l1": 3.0}[norm]
    noise = x + Ball(norm, eps).random(tf.constant(x), [1, 2])
    square = Square(eps, norm=norm, queries=100)(model, x, y)
    fooled = [np.mean(np.argmax(model(images), 1) != y) for images in (noise, square)]
    assert fooled[1] > fooled[0] + 0.1


@settings(max_examples=8, deadline=None)
@given(
    norm=st.sampled_from(["linf", "l2", "l1"]),
    shape=st.sampled_from([(7,), (5, 2), (6, 4, 1), (3, 8, 3), (2, 3, 3, 1), (1, 1, 1)]),
    eps=st.sampled_from([0.0, 0.03, 1.0, 20.0]),
    bounds=st.sampled_from([(0.0, 1.0), (-1.0, 2.0)]),
    seed=st.integers(0, 99),
)
def test_stays_in_ball_and_bounds_and_is_never_worse(norm, shape, eps, bounds, seed):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(int(np.prod(shape)), 3)).astype("float32")
    x = rng.uniform(*bounds, size=(5, *shape)).astype("float32")
    y = rng.integers(0, 3, size=5)

    def model(x):
        return tf.reshape(x, [-1, len(weights)]) @ weights

    attack = Square(eps, norm=norm, queries=12, restarts=2, bounds=bounds)
    x_adv = attack(model, x, y, seed=seed).numpy()
    np.testing.assert_array_equal(x_adv, attack(model, x, y, seed=seed))
    assert np.isfinite(x_adv).all()
    assert x_adv.min() >= bounds[0] and x_adv.max() <= bounds[1]
    assert distances(x_adv, x, norm).max() <= eps + 1e-6
    before, after = (kr.losses.margin(y, model(images)).numpy() for images in (x, x_adv))
    assert np.all(after >= before - 1e-4)
    already = np.argmax(model(x), axis=1) != y
    np.testing.assert_array_equal(x_adv[already], x[already])
    if eps == 0:
        np.testing.assert_array_equal(x_adv, x)


def test_only_images_that_still_stand_are_asked():
    asked = []

    def predict(x):
        asked.append(len(x))
        # The first image falls to any change, the second never, the third is wrong from the start.
        score = np.where(x[:, 0, 0, 0] > 0.6, 1.0, -1.0)
        score = np.where((x[:, 0, 0, 0] != 0.3) & (x[:, 0, 0, 0] < 0.5), 1.0, score)
        return np.stack([0 * score, score], axis=1).astype("float32")

    x = np.float32([0.3, 0.55, 0.9])[:, None, None, None] * np.ones((1, 4, 4, 1), "float32")
    box = kr.attacks.BlackBox(predict, classes=2)
    Square(0.01, queries=7)(box, x, [0, 0, 0])
    # Checked eagerly, asked before the start, then candidates.
    assert asked == [3, 3, 2] + [1] * 6
    assert box.queries == sum(asked)


def test_stops_when_nothing_stands(linear):
    model, asked = linear(16), []

    def predict(x):
        asked.append(len(x))
        return model(x).numpy()

    x = np.full((2, 4, 4, 1), 0.5, "float32")
    y = np.argmax(predict(x), axis=1)
    Square(0.5, queries=1000)(kr.attacks.BlackBox(predict, classes=2), x, y)
    assert len(asked) < 50


def test_restarts_search_on(cnn, blobs):
    model, (x, y) = cnn(), blobs(64)
    y = np.argmax(model(x), axis=1)
    fooled = [
        np.mean(np.argmax(model(Square(0.06, queries=10, restarts=n)(model, x, y)), 1) != y)
        for n in (1, 6)
    ]
    assert fooled[1] > fooled[0]


def test_targeted_reaches_its_label(cnn, blobs):
    model, (x, _) = cnn(), blobs(32)
    y = (np.argmax(model(x), axis=1) + 1) % 3
    x_adv = Square(0.5, queries=300, targeted=True)(model, x, y)
    assert np.mean(np.argmax(model(x_adv), axis=1) == y) > 0.9


def test_bumps_are_as_the_paper_draws_them():
    """Rectangles around the middle added up one by one, as in figure 3 of the paper."""

    def mountain(height, width, power):
        hill = np.zeros((height, width))
        for step in range(max(height, width) // 2 + 1):
            top, left = height // 2 - step, width // 2 - step
            bottom, right = top + 2 * step + 1, left + 2 * step + 1
            hill[max(top, 0) : bottom, max(left, 0) : right] += 1 / (step + 1) ** power
        return hill

    for norm, power, order in (("l2", 2, 2), ("l1", 4, 1)):
        parts = [mountain(3, 7, power), -mountain(4, 7, power)]
        parts = [part / np.linalg.norm(part.ravel(), order) for part in parts]
        bump = np.concatenate(parts)
        bump /= np.linalg.norm(bump.ravel(), order)
        upright, lying = bumps_of(7, 7, norm)
        np.testing.assert_allclose(upright, bump, atol=1e-12)
        np.testing.assert_allclose(lying, bump.T, atol=1e-12)


def test_a_moved_bump_keeps_the_size_and_empties_its_window():
    x = tf.fill([1, 9, 9, 1], 0.5)
    search = Bumps(Ball("l2", 0.4), Frame.of(x), np.full(4, 3))
    start = search.start((x,), tf.constant([0, 1]))
    np.testing.assert_allclose(size(start - x, "l2"), 0.4, rtol=1e-5)
    for number in range(20):
        moved = search.change((x,), start, 2, tf.constant([0, number]))
        np.testing.assert_allclose(size(moved - x, "l2"), 0.4, rtol=1e-5)
        changed = np.abs(moved - start)[0, :, :, 0] > 1e-7
        empty = np.abs(moved - x)[0, :, :, 0] == 0
        # Two windows of 3 x 3 at most; the emptied one may lie under the other.
        assert changed.sum() <= 18 and empty.sum() <= 9


def test_shrinking_is_the_projection(rng):
    x = tf.constant(rng.uniform(size=(20, 6, 6, 1)), tf.float32)
    for eps in (0.0, 0.3, 3.0, 30.0):
        delta = tf.constant(rng.normal(size=x.shape), tf.float32)
        near = _shrink(delta, x, tf.constant(eps), (0.0, 1.0))
        exact = Ball("l1", eps).project(delta, x)
        assert size(near, "l1").numpy().max() <= eps * (1 + 1e-6)
        np.testing.assert_allclose(size(near, "l1"), size(exact, "l1"), rtol=2e-3, atol=1e-6)
        np.testing.assert_allclose(near, exact, atol=2e-3 * eps)


def test_windows_shrink_on_the_papers_schedule():
    sizes = Square(0.1, queries=10000)._sizes(Frame(28, 28, 1))
    assert sizes[[1, 11, 12, 52, 9999]].tolist() == [25, 25, 18, 13, 1]
    assert np.all(np.diff(sizes[1:].astype(int)) <= 0)
    # The side of a window of a fifth of the image: the root of 0.2 x 784.
    first = Square(0.1, queries=10000, p_init=0.2)._sizes(Frame(28, 28, 1))
    assert first[[1, 12, 52, 9999]].tolist() == [13, 9, 6, 1]
    short = Square(0.1, queries=100)._sizes(Frame(28, 28, 1))
    np.testing.assert_array_equal(short[1:], sizes[1 + np.arange(99) * 100])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"queries": 0}, ValueError, "`queries` must be an int >= 1, got queries=0"),
        ({"restarts": 1.5}, ValueError, "`restarts` must be an int >= 1, got restarts=1.5"),
        ({"p_init": 0}, ValueError, r"`p_init` must be in \(0, 1\], got p_init=0"),
        ({"norm": "l3"}, ValueError, "`norm` must be one of 'linf', 'l2', 'l1'"),
        ({"targeted": 1}, TypeError, "`targeted` must be True or False, got targeted=1"),
    ],
)
def test_settings_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        Square(0.1, **arguments)


def test_names():
    assert Square(0.1).name == "Square-5000"
    assert Square(0.1, norm="l2", queries=10, restarts=2).name == "Square-10 x2 l2"
