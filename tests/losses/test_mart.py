"""MART's parts: probabilities in numpy, gradients, and certainty without rounding to zero."""

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from keras_robust import losses

pytestmark = pytest.mark.once

LOGITS = np.random.default_rng(0).normal(size=(5, 4)) * 2
OTHER = np.random.default_rng(1).normal(size=(5, 4)) * 2
LABELS = np.array([0, 1, 2, 3, 0])
P = scipy.special.softmax(LOGITS, axis=1)


def test_runner_up_in_numpy():
    rivals = P.copy()
    rivals[np.arange(5), LABELS] = 0
    expected = -np.log(1 - rivals.max(axis=1))
    np.testing.assert_allclose(losses.runner_up(LABELS, LOGITS), expected, rtol=1e-10)
    np.testing.assert_allclose(losses.runner_up(np.eye(4)[LABELS], LOGITS), expected, rtol=1e-10)


def test_certain_rival_does_not_round_to_infinity():
    got = losses.runner_up([0], tf.constant([[0.0, 200.0, -5.0]]))
    np.testing.assert_allclose(got, [200.0 - np.log1p(np.exp(-5.0))], rtol=1e-6)


def test_misclassification_in_numpy_and_near_certainty():
    expected = 1 - P[np.arange(5), LABELS]
    np.testing.assert_allclose(losses.misclassification(LABELS, LOGITS), expected, rtol=1e-10)
    tiny = losses.misclassification([0], tf.constant([[12.0, 0.0]]))
    np.testing.assert_allclose(tiny, [np.exp(-12.0)], rtol=0.05)


def test_mart_is_the_sum_of_its_parts():
    parts = losses.cross_entropy(LABELS, OTHER) + losses.runner_up(LABELS, OTHER)
    parts += 3 * losses.misclassification(LABELS, LOGITS) * losses.kl_divergence(LOGITS, OTHER)
    np.testing.assert_allclose(losses.mart(LABELS, LOGITS, OTHER, beta=3.0), parts)


@pytest.mark.parametrize("which", [0, 1])
def test_gradients_by_finite_differences(which):
    pair = [tf.constant(LOGITS), tf.constant(OTHER)]

    def loss(logits):
        pair_of = [logits if i == which else pair[i] for i in range(2)]
        return losses.mart(LABELS, *pair_of, beta=2.0)

    (exact,), (numeric,) = tf.test.compute_gradient(loss, [pair[which]])
    np.testing.assert_allclose(exact, numeric, atol=1e-6)
