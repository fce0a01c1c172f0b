"""Losses against numpy in float64, finite differences and their limits."""

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from keras_robust import losses

pytestmark = pytest.mark.once

LOGITS = np.random.default_rng(0).normal(size=(5, 4)) * 3
LABELS = np.array([0, 1, 2, 3, 0])


def test_cross_entropy_matches_scipy():
    expected = -scipy.special.log_softmax(LOGITS, axis=1)[np.arange(5), LABELS]
    np.testing.assert_allclose(losses.cross_entropy(LABELS, LOGITS), expected, rtol=1e-12)
    one_hot = np.eye(4)[LABELS]
    np.testing.assert_allclose(losses.cross_entropy(one_hot, LOGITS), expected, rtol=1e-12)


def test_log_odds_are_cross_entropy_before_its_softplus():
    odds = losses.log_odds(LABELS, LOGITS)
    expected = scipy.special.softmax(LOGITS, axis=1)[np.arange(5), LABELS]
    np.testing.assert_allclose(odds, np.log((1 - expected) / expected), rtol=1e-10)
    np.testing.assert_allclose(tf.math.softplus(odds), losses.cross_entropy(LABELS, LOGITS))


def test_log_odds_gradient_has_the_direction_of_cross_entropy():
    logits = tf.constant(LOGITS)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        odds, loss = losses.log_odds(LABELS, logits), losses.cross_entropy(LABELS, logits)
    ours, theirs = (tape.gradient(v, logits).numpy() for v in (odds, loss))
    ours, theirs = (g / np.linalg.norm(g, axis=1, keepdims=True) for g in (ours, theirs))
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_log_odds_of_soft_labels_are_their_cross_entropy():
    soft = np.full((5, 4), 0.25)
    np.testing.assert_allclose(losses.log_odds(soft, LOGITS), losses.cross_entropy(soft, LOGITS))


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.log_odds, losses.margin, losses.dlr])
def test_gradients_by_finite_differences(loss):
    logits = tf.constant(LOGITS, tf.float64)
    (exact,), (numeric,) = tf.test.compute_gradient(lambda z: loss(LABELS, z), [logits])
    np.testing.assert_allclose(exact, numeric, atol=1e-6)


@pytest.mark.parametrize("loss", [losses.margin, losses.dlr])
def test_sign_says_misclassified(loss):
    wrong = np.argmax(LOGITS, axis=1) != LABELS
    np.testing.assert_array_equal(loss(LABELS, LOGITS).numpy() > 0, wrong)


def test_dlr_by_hand():
    """Equation 6: -(z_y - max_other) / (z_1st - z_3rd)."""
    np.testing.assert_allclose(losses.dlr([1], [[5.0, 3.0, 1.0, -7.0]]), [0.5])


def test_dlr_ignores_shift_and_scale():
    np.testing.assert_allclose(
        losses.dlr(LABELS, LOGITS), losses.dlr(LABELS, 100 * LOGITS + 7), rtol=1e-6
    )


def test_dlr_needs_three_classes():
    with pytest.raises(ValueError, match='"dlr" loss needs at least 3 classes, got 2'):
        losses.dlr([0], [[1.0, 2.0]])


def test_kl_matches_scipy_and_vanishes_at_equality():
    other = LOGITS[::-1]
    p, q = scipy.special.softmax(LOGITS, axis=1), scipy.special.softmax(other, axis=1)
    expected = scipy.special.rel_entr(p, q).sum(axis=1)
    np.testing.assert_allclose(losses.kl_divergence(LOGITS, other), expected, rtol=1e-10)
    np.testing.assert_allclose(losses.kl_divergence(LOGITS, LOGITS), np.zeros(5), atol=1e-15)


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.log_odds, losses.margin, losses.dlr])
def test_half_precision_is_widened(loss):
    assert loss(LABELS, tf.cast(LOGITS, tf.float16)).dtype == tf.float32


@pytest.mark.parametrize("jit_compile", [False, True])
def test_log_odds_of_confident_one_hot_labels_have_a_gradient(jit_compile):
    """At a margin of 40 that of the cross-entropy is lost in rounding; soft rows keep theirs."""
    logits = tf.constant([[40.0, 0.0, -1.0], [40.0, 0.0, -1.0]])

    @tf.function(jit_compile=jit_compile)
    def gradient(labels):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = losses.log_odds(labels, logits)
        return value, tape.gradient(value, logits)

    value, slope = gradient(tf.constant([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]))
    others = np.exp([0.0, -1.0]) / np.exp([0.0, -1.0]).sum()
    np.testing.assert_allclose(value, [np.log1p(np.exp(-1)) - 40, 20], rtol=1e-6)
    np.testing.assert_allclose(slope, [[-1, *others], [0.5, -0.5, 0]], atol=1e-6)
    np.testing.assert_allclose(slope[0], gradient(tf.constant([0, 0]))[1][0], atol=1e-7)
