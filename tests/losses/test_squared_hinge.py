"""The squared hinge: by hand, beside Keras's own, and its gradient."""

import numpy as np
import pytest
import tensorflow as tf

from keras_robust._keras import keras
from keras_robust.losses import SquaredHinge, squared_hinge

LOGITS = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
LABELS = np.array([0, 2, 1, 0])


def test_by_hand():
    # Margins 2, -3 and 0.5 from targets +1, -1, -1.
    got = squared_hinge([0], [[2.0, 3.0, -0.5]])
    np.testing.assert_allclose(got, [(0 + 16 + 0.25) / 3], rtol=1e-6)


@pytest.mark.parametrize("labels", [LABELS, LABELS[:, None], np.eye(3, dtype="float32")[LABELS]])
def test_agrees_with_keras_on_its_own_targets(labels):
    expected = keras.losses.SquaredHinge()(2 * np.eye(3)[LABELS] - 1, LOGITS)
    got = SquaredHinge()(tf.constant(labels), tf.constant(LOGITS))
    np.testing.assert_allclose(float(got), float(expected), rtol=1e-6)


def test_gradient():
    logits = tf.constant(LOGITS, tf.float64)
    (exact,), (numeric,) = tf.test.compute_gradient(lambda z: squared_hinge(LABELS, z), [logits])
    np.testing.assert_allclose(exact, numeric, atol=1e-6)


def test_half_precision_is_computed_wider():
    assert squared_hinge([0], tf.zeros([1, 2], tf.float16)).dtype == tf.float32
    assert squared_hinge([0], tf.zeros([1, 2], tf.float64)).dtype == tf.float64


def test_survives_its_config():
    twin = SquaredHinge.from_config(SquaredHinge(name="mine").get_config())
    assert twin.name == "mine"
