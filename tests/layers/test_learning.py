"""Closed-form gradients and steps, against automatic differentiation and numpy."""

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.layers._learning import residual, statistics, step

pytestmark = pytest.mark.once


def problem(rng, factored, scale=1.0, m=6, n=5):
    a = (scale * rng.normal(size=(n, m))).astype("float32")
    b = rng.normal(size=m).astype("float32")
    if factored:
        w = tuple(tf.constant(rng.normal(size=(m, 2)).astype("float32")) for _ in range(2))
    else:
        w = tf.constant(rng.normal(size=(m, m)).astype("float32"))
    return tf.constant(a), tf.constant(b), w


def loss_of(a, w, b):
    return tf.reduce_mean(tf.reduce_sum(tf.square(residual(a + b, w)), axis=1))


def sums_of(a, w, b):
    return statistics(a + b, residual(a + b, w), w)


@pytest.mark.parametrize("factored", [False, True])
def test_gradients_are_those_of_automatic_differentiation(rng, factored):
    a, b, w = problem(rng, factored)
    with tf.GradientTape() as tape:
        tape.watch((b, w))
        loss = loss_of(a, w, b)
    of_b, of_w = tape.gradient(loss, (b, w))
    *products, error, square, count = sums_of(a, w, b)
    for found, expected in zip(products, tf.nest.flatten(of_w), strict=True):
        np.testing.assert_allclose(2 / count * found, expected, rtol=2e-4, atol=1e-4)
    np.testing.assert_allclose(square, np.sum(np.square(a + b)), rtol=1e-5)
    new_b = step(w, b, [*products, error, square, count], 0.5, 1e-3)[1]
    np.testing.assert_allclose((b - new_b) / 1e-3, of_b, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("factored", [False, True])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_no_scale_of_activations_makes_it_diverge(rng, factored, scale):
    a, b, w = problem(rng, factored, scale)
    losses = [float(loss_of(a, w, b))]
    for _ in range(60):
        w, b = step(w, b, sums_of(a, w, b), 0.95, 0.95)
        losses.append(float(loss_of(a, w, b)))
    assert np.isfinite(losses).all() and losses[-1] < 0.1 * losses[0]


def test_statistics_of_parts_add_up(rng):
    a, b, w = problem(rng, False)
    parts = [sums_of(part, w, b) for part in (a[:2], a[2:])]
    for one, two, whole in zip(*parts, sums_of(a, w, b), strict=True):
        np.testing.assert_allclose(one + two, whole, rtol=1e-4, atol=1e-4)


def test_activations_of_zero_move_nothing():
    w, b, a = tf.eye(3), tf.zeros(3), tf.zeros([2, 3])
    new_w, new_b = step(w, b, sums_of(a, w, b), 0.5, 0.5)
    np.testing.assert_array_equal(new_w, w)
    np.testing.assert_array_equal(new_b, b)
