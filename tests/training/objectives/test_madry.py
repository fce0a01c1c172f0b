"""Madry's objective: the compiled loss at the attack's own examples, and nothing else."""

import numpy as np
import tensorflow as tf

import keras_robust as kr
from keras_robust.training.objectives import Madry, Step


def test_is_the_compiled_loss_at_the_attacks_examples(cnn, blobs):
    model, (x, y) = cnn(), blobs(12)
    attack, seed = kr.attacks.PGD(0.1, steps=3), tf.constant([5, 0])
    step = Step(model, attack, 0.1, seed, lambda y, z, w: (kr.losses.cross_entropy(y, z), w))
    x_adv = Madry().perturb(step, tf.constant(x), tf.constant(y))
    np.testing.assert_allclose(x_adv, attack(model, x, y, seed=5), atol=1e-6)
    outcome = Madry().minimise(step, x, x_adv, y, "the weights")
    np.testing.assert_allclose(outcome.loss[0], kr.losses.cross_entropy(y, model(x_adv)))
    assert outcome.loss[1] == "the weights" and outcome.logits is outcome.adv_logits


def test_minimises_the_weighted_mean_in_numpy(net, batch, step_for):
    """Its gradient, too, by backpropagation written out."""
    x, x_adv, y, weight = batch
    with tf.GradientTape() as tape:
        outcome = Madry().minimise(step_for(net), x, x_adv, y, weight)
    expected = np.mean(weight * net.cross_entropy(x_adv, y))
    np.testing.assert_allclose(outcome.loss, expected, rtol=1e-10)
    np.testing.assert_allclose(outcome.logits, net.numpy(x_adv))
    slopes = tape.gradient(outcome.loss, net.trainable_variables)
    for slope, wanted in zip(slopes, net.slopes(x_adv, y, weight)):
        np.testing.assert_allclose(slope, wanted, atol=1e-12)


def test_gradient_by_finite_differences(net, batch, step_for, check_gradient):
    x, x_adv, y, weight = batch
    step = step_for(net)
    check_gradient(
        net.trainable_variables, lambda: Madry().minimise(step, x, x_adv, y, weight).loss
    )


def test_mean_weighs_examples():
    step = Step(None, None, 0.1, None, None)
    values = tf.constant([1.0, 3.0])
    assert float(step.mean(values)) == 2.0
    assert float(step.mean(values, [[2.0], [0.0]])) == 1.0
