"""MART: its sum in numpy, its gradient, its limit."""

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

import keras_robust as kr
from keras_robust.training.objectives import MART, Madry


def twin(y, clean, adv, beta):
    rows = np.arange(len(y))
    p, q = scipy.special.softmax(clean, axis=1), scipy.special.softmax(adv, axis=1)
    rivals = q.copy()
    rivals[rows, y] = 0
    boosted = -np.log(q[rows, y]) - np.log(1 - rivals.max(axis=1))
    return boosted + beta * scipy.special.rel_entr(p, q).sum(axis=1) * (1 - p[rows, y])


def test_minimises_the_papers_sum(net, batch, step_for):
    x, x_adv, y, weight = batch
    outcome = MART(beta=3.0).minimise(step_for(net), x, x_adv, y, weight)
    expected = np.mean(weight * twin(y, net.numpy(x), net.numpy(x_adv), 3.0))
    np.testing.assert_allclose(outcome.loss, expected, rtol=1e-10)
    np.testing.assert_allclose(outcome.logits, net.numpy(x))
    np.testing.assert_allclose(outcome.adv_logits, net.numpy(x_adv))


def test_gradient_by_finite_differences(net, batch, step_for, check_gradient):
    """It flows through the weight by misclassification, too."""
    x, x_adv, y, _ = batch
    step = step_for(net)
    check_gradient(net.trainable_variables, lambda: MART().minimise(step, x, x_adv, y, None).loss)


def test_attack_is_the_trainers(net, batch, step_for):
    x, _, y, _ = batch
    step = step_for(net, seed=4)
    x, y = tf.constant(x), tf.constant(y, tf.int32)
    np.testing.assert_array_equal(MART().perturb(step, x, y), Madry().perturb(step, x, y))


def test_one_hot_labels_count_as_integers(net, batch, step_for):
    x, x_adv, y, _ = batch
    losses = [MART().minimise(step_for(net), x, x_adv, z, None).loss for z in (y, np.eye(3)[y])]
    np.testing.assert_allclose(*losses)


def test_negative_beta_is_refused():
    with pytest.raises(ValueError, match="`beta` must be a finite number >= 0, got beta=-1"):
        MART(beta=-1)
    with pytest.raises(ValueError, match="`beta` must be >= 0"):
        kr.losses.mart([0], [[0.0, 1.0]], [[0.0, 1.0]], beta=-1)
