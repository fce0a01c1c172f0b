"""Binary layers in half precision and called twice: latent weights, gradients and the clip."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.training._resolved import resolved_weights

X = np.random.default_rng(0).uniform(size=(8, 6, 6, 2)).astype("float32")
Y = (np.arange(8) % 3).astype("int32")
# Of the largest gradient: float16 has 11 bits, bfloat16 8.
TOLERANCES = {"mixed_float16": 4e-3, "mixed_bfloat16": 3e-2}


@pytest.fixture(params=TOLERANCES)
def policy(request):
    before = keras.mixed_precision.global_policy()
    yield request.param
    set_policy(before)


set_policy = keras.mixed_precision.set_global_policy


def net(**options):
    layers = [
        kr.layers.BinaryConv2D(4, 3, activation="relu", name="conv", **options),
        kr.layers.BinaryDepthwiseConv2D(2, name="depthwise", **options),
        keras.layers.Flatten(),
        kr.layers.BinaryDense(3, name="dense", **options),
    ]
    return keras.Sequential([keras.Input(X.shape[1:]), *layers])


def gradients(model):
    latent = [layer.latent for layer in model.layers if hasattr(layer, "latent")]
    with tf.GradientTape() as tape:
        logits = tf.cast(model(X, training=True), tf.float32)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(Y, logits))
    return [np.asarray(g) for g in tape.gradient(loss, latent)]


@pytest.mark.parametrize("stochastic", [False, True])
def test_gradients_are_those_of_float32(policy, stochastic):
    # A magnitude as it is in use, so that the loss is not saturated.
    expected = gradients(net(stochastic=stochastic, scale="glorot"))
    set_policy(policy)
    model = net(stochastic=stochastic, scale="glorot")
    assert model.layers[0].compute_dtype == policy.removeprefix("mixed_")
    found = gradients(model)
    for got, want in zip(found, expected, strict=True):
        assert got.dtype == np.float32
        assert np.abs(got - want).max() <= TOLERANCES[policy] * np.abs(want).max()
        assert np.abs(want).max() > 0


def test_latent_weights_are_float32_and_clipped(policy):
    set_policy(policy)
    model = net(stochastic=True, scale=0.5)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(30.0), loss)
    before = [layer.latent.numpy() for layer in model.layers if hasattr(layer, "latent")]
    model.fit(X, Y, batch_size=4, epochs=2, verbose=0)
    layers = [layer for layer in model.layers if hasattr(layer, "latent")]
    for layer, start in zip(layers, before, strict=True):
        latent = layer.latent.numpy()
        assert latent.dtype == np.float32 and tf.as_dtype(layer.latent.dtype) == tf.float32
        assert np.abs(latent).max() <= np.float32(layer.limit)
        real = np.abs(np.asarray(layer.real))
        assert real.max() == pytest.approx(0.5) and np.isfinite(latent).all()
        assert np.abs(latent - start).max() > 0


def shared(**options):
    """The same layer twice."""
    layer = kr.layers.BinaryDense(6, name="twice", **options)
    inputs = keras.Input((6,))
    x = keras.layers.Activation("tanh")(layer(inputs))
    return keras.Model(inputs, layer(x)), layer


def test_a_shared_layer_has_the_sum_of_both_gradients():
    model, layer = shared(scale="glorot", use_bias=False)
    x = tf.constant(np.random.default_rng(1).normal(size=(5, 6)), tf.float32)
    plain = tf.constant(layer.kernel)
    with tf.GradientTape() as tape:
        tape.watch(plain)
        expected = tf.reduce_sum(tf.square(tf.tanh(x @ plain) @ plain))
    expected = layer.slope * tape.gradient(expected, plain)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model(x, training=True)))
    np.testing.assert_allclose(tape.gradient(loss, layer.latent), expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
def test_a_shared_stochastic_layer_is_drawn_once_a_step(jit):
    model, layer = shared(stochastic=True)
    x = np.random.default_rng(1).uniform(size=(12, 6)).astype("float32")
    # Both calls of a step of ours see one draw.
    with resolved_weights(model):
        one, other = layer(np.eye(6, dtype="f4"), training=True), layer(np.eye(6, dtype="f4"))
        np.testing.assert_array_equal(one, other)
    count = int(layer._count)
    trainer = kr.AdversarialTraining(model, kr.attacks.FGSM(0.1))
    trainer.compile(keras.optimizers.SGD(0.1), jit_compile=jit)
    trainer.fit(x, np.arange(12) % 6, batch_size=4, verbose=0)
    assert int(layer._count) == count + 3
    assert np.abs(layer.latent.numpy()).max() <= np.float32(layer.limit)
