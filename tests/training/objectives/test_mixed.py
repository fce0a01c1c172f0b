"""Mixed: plain training at one end, Madry's at the other, their mean between."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.training.objectives import Madry, Mixed

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
ATTACK = kr.attacks.PGD(0.2, steps=2)


def trained(model, data, objective):
    trainer = kr.AdversarialTraining(model, ATTACK, objective=objective)
    trainer.compile(keras.optimizers.SGD(0.1), LOSS)
    trainer.fit(data, epochs=2, verbose=0)
    return model.get_weights()


@pytest.fixture
def data(blobs):
    return tf.data.Dataset.from_tensor_slices(blobs(24)).batch(16)


def test_all_adversarial_is_madry(cnn, data):
    models = [cnn(batch_norm=True), cnn(batch_norm=True)]
    for a, b in zip(trained(models[0], data, Mixed(1.0)), trained(models[1], data, Madry())):
        np.testing.assert_array_equal(a, b)


def test_all_clean_is_plain_training(cnn, data):
    """BatchNorm included: the examples that are only counted do not move its statistics."""
    plain = cnn(batch_norm=True)
    plain.compile(keras.optimizers.SGD(0.1), LOSS)
    plain.fit(data, epochs=2, verbose=0)
    for a, b in zip(trained(cnn(batch_norm=True), data, Mixed(0.0)), plain.get_weights()):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_all_clean_keeps_what_layers_add_to_the_loss(data):
    """At the clean inputs, not at the examples that are only counted."""

    def make():
        start = [keras.initializers.GlorotUniform(seed=i) for i in range(2)]
        layers = [keras.layers.Flatten(), keras.layers.Dense(4, kernel_initializer=start[0])]
        layers += [keras.layers.ActivityRegularization(l2=0.1)]
        layers += [keras.layers.Dense(3, kernel_initializer=start[1])]
        return keras.Sequential([keras.Input((6, 6, 1)), *layers])

    plain = make()
    plain.compile(keras.optimizers.SGD(0.1), LOSS)
    plain.fit(data, epochs=2, verbose=0)
    for a, b in zip(trained(make(), data, Mixed(0.0)), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_between_it_is_the_weighted_mean(net, batch, step_for, check_gradient):
    x, x_adv, y, weight = batch
    step = step_for(net)
    outcome = Mixed(0.3).minimise(step, x, x_adv, y, weight)
    clean, adv = (step.compiled_loss(y, net.numpy(z), weight) for z in (x, x_adv))
    np.testing.assert_allclose(outcome.loss, 0.7 * clean + 0.3 * adv, rtol=1e-12)
    np.testing.assert_allclose(outcome.logits, net.numpy(x))
    np.testing.assert_allclose(outcome.adv_logits, net.numpy(x_adv))
    check_gradient(
        net.trainable_variables, lambda: Mixed(0.3).minimise(step, x, x_adv, y, weight).loss
    )


@pytest.mark.parametrize("ratio", [-0.1, 1.1, "half", float("nan")])
def test_ratio_out_of_range_is_refused(ratio):
    with pytest.raises(ValueError, match=r"`ratio` must be in \[0, 1\], got ratio="):
        Mixed(ratio)
