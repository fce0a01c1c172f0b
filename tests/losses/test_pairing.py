"""Logit pairing: by hand, its gradient, and zero for equal logits."""

import numpy as np
import pytest
import tensorflow as tf

from keras_robust import losses

pytestmark = pytest.mark.once


def test_squared_distance_by_hand():
    got = losses.logit_pairing([[1.0, 2.0], [0.0, 0.0]], [[0.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(got, [5.0, 0.0])


def test_gradient_by_finite_differences(rng):
    one, other = (tf.constant(rng.normal(size=(3, 4))) for _ in range(2))
    exact, numeric = tf.test.compute_gradient(losses.logit_pairing, [one, other])
    for a, b in zip(exact, numeric):
        np.testing.assert_allclose(a, b, atol=1e-6)
