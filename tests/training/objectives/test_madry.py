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


def test_mean_weighs_examples():
    step = Step(None, None, 0.1, None, None)
    values = tf.constant([1.0, 3.0])
    assert float(step.mean(values)) == 2.0
    assert float(step.mean(values, [[2.0], [0.0]])) == 1.0
