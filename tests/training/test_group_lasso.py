"""Proximal steps inside `fit`: the rate they take, and the zeros that stay."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.layers import GroupLasso
from keras_robust.training import ProximalGroupLasso


def linear_model():
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, use_bias=False, name="a"),
         keras.layers.Dense(2, use_bias=False, name="b")]
    )  # fmt: skip


@pytest.mark.parametrize("per_execution, scheduled", [(1, True), (2, False)])
def test_each_step_of_sgd_is_followed_by_one_of_the_penalty(per_execution, scheduled, rng):
    """On a loss without gradient only the penalty moves the kernel."""
    model, before = linear_model(), rng.normal(size=(4, 3)).astype("float32")
    model.get_layer("a").set_weights([before])
    model.get_layer("b").set_weights([np.zeros((3, 2), "float32")])
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 100, 1.0) if scheduled else 0.1
    model.compile(
        keras.optimizers.SGD(rate),
        keras.losses.MeanSquaredError(),
        steps_per_execution=per_execution,
        jit_compile=False,
    )
    callback = ProximalGroupLasso(GroupLasso(0.5), layers=["a"])
    x = np.ones((8, 4), "float32")
    data = tf.data.Dataset.from_tensor_slices((x, np.zeros((8, 2), "float32"))).batch(2)
    model.fit(data, epochs=2, callbacks=[callback], verbose=0)
    norms = np.linalg.norm(before, axis=0)
    want = before * np.maximum(0, 1 - 8 * 0.1 * 0.5 / norms)
    np.testing.assert_allclose(model.get_layer("a").get_weights()[0], want, atol=1e-6)


@pytest.mark.parametrize("rate, momentum", [(1.5, 0.0), (0.3, 0.8)])
def test_a_quadratic_settles_in_closed_form(rate, momentum, rng):
    """The mean of (w - t)^2 over 12 numbers has the gradient (w - t) / 6."""
    target = (rng.normal(size=(4, 3)) * [0.2, 1.0, 3.0]).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, use_bias=False, name="a")])
    model.compile(keras.optimizers.SGD(rate, momentum), "mse", jit_compile=False)
    data = tf.data.Dataset.from_tensors((np.eye(4, dtype="float32"), target)).repeat(150)
    callback = ProximalGroupLasso(GroupLasso(0.2), layers=["a"])
    model.fit(data, callbacks=[callback], verbose=0)
    norms = np.linalg.norm(target, axis=0)
    limit = 6 * 0.2 * (1 - momentum)
    want = target * np.maximum(0, 1 - limit / norms)
    found = model.get_layer("a").get_weights()[0]
    np.testing.assert_allclose(found, want, atol=1e-4)
    assert np.array_equal(np.any(found != 0, axis=0), norms > limit)


def test_adversarial_training_under_xla_leaves_exact_zeros_that_can_be_removed(blobs):
    keras.utils.set_random_seed(0)
    x, y = blobs()
    start = [keras.initializers.GlorotUniform(seed=i) for i in range(3)]
    model = keras.Sequential(
        [keras.Input((6, 6, 1)),
         keras.layers.Conv2D(6, 3, activation="relu", kernel_initializer=start[0]),
         keras.layers.Flatten(),
         keras.layers.Dense(8, "relu", kernel_initializer=start[1]),
         keras.layers.Dense(3, kernel_initializer=start[2])]
    )  # fmt: skip
    trainer = kr.AdversarialTraining(model, kr.attacks.FGSM(eps=0.05))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trainer.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, jit_compile=True)
    lasso = ProximalGroupLasso(GroupLasso(0.15))
    trainer.fit(x, y, batch_size=16, epochs=12, callbacks=[lasso], verbose=0)

    kernels = [layer.get_weights()[0] for layer in model.layers if layer.weights]
    dead = [int(np.sum(np.all(k == 0, axis=tuple(range(k.ndim - 1))))) for k in kernels]
    assert sum(dead[:2]) >= 3, dead
    smaller = kr.compress.remove_dead(model)
    assert smaller.count_params() < 0.9 * model.count_params()
    np.testing.assert_allclose(smaller(x), model(x), atol=1e-5)
    accuracy = np.mean(np.argmax(smaller(x), -1) == y)
    assert accuracy > 0.9


def test_the_last_layer_is_left_out_for_filters_only():
    def chosen(groups):
        callback = ProximalGroupLasso(GroupLasso(1.0, groups))
        callback.set_model(linear_model())
        callback.on_train_begin()
        return len(callback._kernels)

    assert (chosen("filters"), chosen("channels"), chosen("depth")) == (1, 2, 1)


def test_errors():
    with pytest.raises(TypeError, match="`penalty` must be a kr.layers.GroupLasso, got 0.1"):
        ProximalGroupLasso(0.1)
    with pytest.raises(TypeError, match=r"write \['a'\]"):
        ProximalGroupLasso(GroupLasso(), layers="a")
    callback = ProximalGroupLasso(GroupLasso(), layers=["c"])
    callback.set_model(linear_model())
    with pytest.raises(ValueError, match=r"names \['c'\].*It has \['a', 'b'\]"):
        callback.on_train_begin()
    callback = ProximalGroupLasso(GroupLasso())
    callback.set_model(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]))
    with pytest.raises(ValueError, match="no Dense or convolution before its last one"):
        callback.on_train_begin()


def test_frozen_layers_are_left_alone(rng):
    layers = [keras.layers.Dense(3, name=name) for name in ("frozen", "trained")]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(2)])
    layers[0].trainable = False
    before = layers[0].get_weights()[0]
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x = np.ones((8, 4), "float32")
    callback = ProximalGroupLasso(GroupLasso(1e6))
    model.fit(x, np.ones((8, 2)), callbacks=[callback], verbose=0)
    np.testing.assert_array_equal(layers[0].get_weights()[0], before)
    assert not layers[1].get_weights()[0].any()
    named = ProximalGroupLasso(GroupLasso(1.0), layers=["frozen"])
    with pytest.raises(ValueError, match=r"`layers` names \['frozen'\], whose trainable is False"):
        model.fit(x, np.ones((8, 2)), callbacks=[named], verbose=0)


def test_layers_of_one_name_in_several_models():
    def branch():
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, name="d")])

    inputs, a, b = keras.Input((4,)), branch(), branch()
    joined = keras.layers.Concatenate()([a(inputs), b(inputs)])
    model = keras.Model(inputs, keras.layers.Dense(2)(joined))
    model.compile("sgd", "mse")
    lasso = ProximalGroupLasso(GroupLasso(1e6))
    model.fit(np.ones((8, 4)), np.ones((8, 2)), callbacks=[lasso], verbose=0)
    assert not np.any(a.layers[-1].get_weights()[0]) and not np.any(b.layers[-1].get_weights()[0])
    assert np.any(model.layers[-1].get_weights()[0])
    lasso = ProximalGroupLasso(GroupLasso(1e6), layers=["d"])
    with pytest.raises(ValueError, match=r"names \['d'\], but several layers"):
        model.fit(np.ones((8, 4)), np.ones((8, 2)), callbacks=[lasso], verbose=0)
