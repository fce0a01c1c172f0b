"""The input-gradient penalty: closed forms, double backpropagation, its limit."""

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.training.objectives import GradientPenalty


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_closed_form_of_a_linear_model(linear_net, batch, step_for, norm):
    """The input gradient of the cross-entropy is `w @ (p - one_hot)`."""
    x, y, weight = tf.constant(batch[0], tf.float64), batch[2] % 2, batch[3]
    objective = GradientPenalty(weight=0.3, norm=norm)
    outcome = objective.minimise(step_for(linear_net), x, x, y, weight)
    p = scipy.special.softmax(x.numpy() @ linear_net.w.numpy(), axis=1)
    gradient = (p - np.eye(2)[y]) @ linear_net.w.numpy().T
    size = np.sum(gradient**2 if norm == "l2" else np.abs(gradient), axis=1)
    expected = np.mean(weight * (-np.log(p[np.arange(6), y]) + 0.3 * size))
    np.testing.assert_allclose(outcome.loss, expected, rtol=1e-10)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_gradient_by_finite_differences(net, batch, step_for, check_gradient, norm):
    x, y = tf.constant(batch[0], tf.float64), batch[2]
    step, objective = step_for(net), GradientPenalty(weight=0.5, norm=norm)
    check_gradient(net.trainable_variables, lambda: objective.minimise(step, x, x, y, None).loss)


def test_without_weight_is_plain_training(cnn, blobs):
    data = tf.data.Dataset.from_tensor_slices(blobs(24)).batch(16)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    plain, model = cnn(batch_norm=True), cnn(batch_norm=True)
    plain.compile(keras.optimizers.SGD(0.1), loss)
    plain.fit(data, verbose=0)
    trainer = kr.AdversarialTraining(model, kr.attacks.FGSM(0.1), GradientPenalty(weight=0.0))
    trainer.compile(keras.optimizers.SGD(0.1), loss)
    trainer.fit(data, verbose=0)
    for a, b in zip(plain.get_weights(), model.get_weights()):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="`norm` must be 'l2' or 'l1', got norm='linf'"):
        GradientPenalty(norm="linf")
    with pytest.raises(ValueError, match="`weight` must be a finite number >= 0"):
        GradientPenalty(weight=float("nan"))
