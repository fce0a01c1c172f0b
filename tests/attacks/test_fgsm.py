"""FGSM is exact on linear models, for each norm, bounds included."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2), ("l1", np.inf)])
def test_margin_moves_by_eps_times_the_dual_norm(linear, norm, dual, targeted):
    """Far from the bounds: margin after = margin before + eps * |w1 - w0|_dual."""
    model, eps = linear(12), 0.01
    x = np.random.default_rng(1).uniform(0.3, 0.7, size=(5, 12)).astype("float32")
    y = np.argmax(model(x), axis=1)
    given = 1 - y if targeted else y
    x_adv = kr.attacks.FGSM(eps, norm=norm, targeted=targeted)(model, x, given)
    gain = kr.losses.margin(y, model(x_adv)) - kr.losses.margin(y, model(x))
    difference = model.weights[:, 1] - model.weights[:, 0]
    np.testing.assert_allclose(gain, np.full(5, eps * np.linalg.norm(difference, dual)), rtol=1e-3)


def test_linf_is_the_sign_of_the_gradient(cnn, blobs):
    model, (x, y) = cnn(), blobs(8)
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = kr.losses.cross_entropy(y, model(x, training=False))
    expected = tf.clip_by_value(x + 0.1 * tf.sign(tape.gradient(loss, x)), 0.0, 1.0)
    np.testing.assert_allclose(kr.attacks.FGSM(0.1)(model, x, y), expected, atol=1e-7)


def test_confident_examples_keep_their_gradient():
    """softmax - one_hot is exactly zero in float32 here; the attack moves all the same."""
    x = tf.constant([[0.9, 0.1]])
    assert float(tf.nn.softmax(200.0 * x)[0, 0]) == 1.0
    x_adv = kr.attacks.FGSM(0.1)(lambda x: 200.0 * x, x, [0])
    np.testing.assert_allclose(x_adv, [[0.8, 0.2]], rtol=1e-6)


def test_name_says_the_norm():
    assert [kr.attacks.FGSM(0.1).name, kr.attacks.FGSM(0.1, norm="l2").name] == ["FGSM", "FGSM l2"]
