"""Penalties on input gradients: by hand, scale, and nothing infinite at zero."""

import numpy as np
import pytest
import tensorflow as tf

from keras_robust import losses

pytestmark = pytest.mark.once


def test_sizes_by_hand():
    gradient = tf.constant([[[1.0], [-2.0]], [[0.0], [3.0]]])
    np.testing.assert_allclose(losses.gradient_penalty(gradient), [5.0, 9.0])
    np.testing.assert_allclose(losses.gradient_penalty(gradient, "l1"), [3.0, 3.0])
    with pytest.raises(ValueError, match="`norm` must be 'l2' or 'l1', got norm='l3'"):
        losses.gradient_penalty(gradient, "l3")


def test_misalignment_is_one_minus_the_cosine_at_any_scale(rng):
    one, other = rng.normal(size=(4, 2, 3)), rng.normal(size=(4, 2, 3))
    flat = [part.reshape(4, -1) for part in (one, other)]
    cosine = np.sum(flat[0] * flat[1], 1) / np.prod([np.linalg.norm(f, axis=1) for f in flat], 0)
    got = losses.misalignment(tf.constant(one), tf.constant(other))
    np.testing.assert_allclose(got, 1 - cosine, rtol=1e-10)
    tiny = losses.misalignment(tf.constant(one * 1e-30, tf.float32), tf.constant(other, tf.float32))
    np.testing.assert_allclose(tiny, 1 - cosine, atol=1e-5)


def test_gradient_of_misalignment_by_finite_differences(rng):
    one, other = (tf.constant(rng.normal(size=(3, 4))) for _ in range(2))
    exact, numeric = tf.test.compute_gradient(losses.misalignment, [one, other])
    for a, b in zip(exact, numeric):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_vanished_gradients_are_finite():
    zero, one = tf.zeros((1, 3)), tf.ones((1, 3))
    with tf.GradientTape() as tape:
        tape.watch(zero)
        value = losses.misalignment(zero, one)
    np.testing.assert_array_equal(value, [1.0])
    assert np.all(np.isfinite(tape.gradient(value, zero)))
