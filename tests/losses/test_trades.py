"""TRADES: its limits, its sum and its gradient."""

import numpy as np
import pytest
import tensorflow as tf

from keras_robust import losses

pytestmark = pytest.mark.once

CLEAN = tf.constant([[0.3, -0.7, 0.1], [1.0, 2.0, -1.0]], tf.float64)
ADV = tf.constant([[-0.2, 0.4, 0.0], [1.5, 0.5, 0.0]], tf.float64)


def test_without_robust_term_is_cross_entropy():
    np.testing.assert_allclose(
        losses.trades([0, 1], CLEAN, ADV, beta=0.0), losses.cross_entropy([0, 1], CLEAN)
    )


def test_is_the_sum_of_its_parts():
    parts = losses.cross_entropy([0, 1], CLEAN) + 2.5 * losses.kl_divergence(CLEAN, ADV)
    np.testing.assert_allclose(losses.trades([0, 1], CLEAN, ADV, beta=2.5), parts)


def test_gradient_flows_through_both_logits():
    (exact, exact_adv), (numeric, numeric_adv) = tf.test.compute_gradient(
        lambda clean, adv: losses.trades([0, 1], clean, adv, beta=3.0), [CLEAN, ADV]
    )
    np.testing.assert_allclose(exact, numeric, atol=1e-6)
    np.testing.assert_allclose(exact_adv, numeric_adv, atol=1e-6)


def test_negative_beta_is_refused():
    with pytest.raises(ValueError, match="`beta` must be >= 0, got beta=-1"):
        losses.trades([0, 1], CLEAN, ADV, beta=-1.0)
