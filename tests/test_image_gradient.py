"""The gradient with respect to images by blocks is the one that TensorFlow computes."""

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from keras_robust._image_gradient import convolution, gradient_to_images


def normal(shape, seed, dtype=np.float64):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), dtype)


@hypothesis.given(
    size=st.tuples(st.integers(3, 19), st.integers(3, 19)),
    taps=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    channels=st.integers(1, 6),
    stride=st.integers(1, 5),
    padding=st.sampled_from(["same", "valid"]),
)
@hypothesis.example(size=(28, 28), taps=(3, 3), channels=1, stride=2, padding="same")
@hypothesis.example(size=(32, 32), taps=(7, 7), channels=3, stride=2, padding="valid")
@hypothesis.example(size=(9, 9), taps=(2, 2), channels=3, stride=4, padding="valid")
@hypothesis.settings(max_examples=60, deadline=None)
def test_equals_the_transposed_convolution(size, taps, channels, stride, padding):
    hypothesis.assume(padding == "same" or all(t <= s for t, s in zip(taps, size, strict=True)))
    shape, kernel = (2, *size, channels), normal((*taps, channels, 3), 0)
    outputs = tf.nn.conv2d(tf.zeros(shape, "float64"), kernel, stride, padding.upper()).shape
    gradient = normal(outputs, 1)
    expected = tf.nn.conv2d_transpose(gradient, kernel, shape, stride, padding.upper())

    found = gradient_to_images(gradient, kernel, tf.TensorShape(shape), stride, padding)

    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("stride", "padding"), [(1, "same"), (2, "same"), (3, "valid")])
def test_both_gradients_and_those_of_gradients(stride, padding):
    x, kernel = normal((2, 8, 9, 1), 0), normal((3, 3, 1, 4), 1)

    def derivatives(conv):
        with tf.GradientTape(persistent=True) as outer:
            outer.watch([x, kernel])
            with tf.GradientTape() as inner:
                inner.watch([x, kernel])
                value = tf.reduce_sum(tf.sin(conv(x, kernel)))
            first = inner.gradient(value, [x, kernel])
            penalty = tf.reduce_sum(first[0] ** 2)
        return [value, *first, *outer.gradient(penalty, [x, kernel])]

    ours = derivatives(lambda x, kernel: convolution(x, kernel, stride, padding))
    plain = derivatives(lambda x, kernel: tf.nn.conv2d(x, kernel, stride, padding.upper()))

    for found, expected in zip(ours, plain, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)
