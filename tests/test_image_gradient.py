"""The gradient with respect to images by blocks is the one that TensorFlow computes."""

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

import keras_robust as kr
from keras_robust._image_gradient import convolution, fast_image_gradients, gradient_to_images
from keras_robust._keras import LEGACY, computing_in, keras


def normal(shape, seed, dtype=np.float64):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), dtype)


@hypothesis.given(
    size=st.tuples(st.integers(3, 19), st.integers(3, 19)),
    taps=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    channels=st.integers(1, 6),
    stride=st.integers(1, 5),
    padding=st.sampled_from(["same", "valid"]),
)
@hypothesis.example(size=(28, 28), taps=(3, 3), channels=1, stride=2, padding="same")
@hypothesis.example(size=(32, 32), taps=(7, 7), channels=3, stride=2, padding="valid")
@hypothesis.example(size=(9, 9), taps=(2, 2), channels=3, stride=4, padding="valid")
@hypothesis.settings(max_examples=60, deadline=None)
def test_equals_the_transposed_convolution(size, taps, channels, stride, padding):
    hypothesis.assume(padding == "same" or all(t <= s for t, s in zip(taps, size, strict=True)))
    shape, kernel = (2, *size, channels), normal((*taps, channels, 3), 0)
    outputs = tf.nn.conv2d(tf.zeros(shape, "float64"), kernel, stride, padding.upper()).shape
    gradient = normal(outputs, 1)
    expected = tf.nn.conv2d_transpose(gradient, kernel, shape, stride, padding.upper())

    found = gradient_to_images(gradient, kernel, tf.TensorShape(shape), stride, padding)

    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("stride", "padding"), [(1, "same"), (2, "same"), (3, "valid")])
def test_both_gradients_and_those_of_gradients(stride, padding):
    x, kernel = normal((2, 8, 9, 1), 0), normal((3, 3, 1, 4), 1)

    def derivatives(conv):
        with tf.GradientTape(persistent=True) as outer:
            outer.watch([x, kernel])
            with tf.GradientTape() as inner:
                inner.watch([x, kernel])
                value = tf.reduce_sum(tf.sin(conv(x, kernel)))
            first = inner.gradient(value, [x, kernel])
            penalty = tf.reduce_sum(first[0] ** 2)
        return [value, *first, *outer.gradient(penalty, [x, kernel])]

    ours = derivatives(lambda x, kernel: convolution(x, kernel, stride, padding))
    plain = derivatives(lambda x, kernel: tf.nn.conv2d(x, kernel, stride, padding.upper()))

    for found, expected in zip(ours, plain, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


def input_gradient(model, x, dtype=None, fast=True):
    @tf.function
    def run(x):
        with computing_in(model, dtype), fast_image_gradients(model, fast):
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = tf.reduce_sum(tf.cast(model(x, training=False), tf.float32) ** 2)
        return tape.gradient(value, x), run_graph()

    def run_graph():
        names = [op.type for op in tf.compat.v1.get_default_graph().get_operations()]
        return tf.constant(names.count("DepthToSpace"))

    gradient, blocks = run(x)
    return gradient.numpy(), int(blocks)


@pytest.mark.parametrize("dtype", [None, "bfloat16", "float16"])
@pytest.mark.parametrize("make", [kr.zoo.small_cnn, kr.zoo.lenet5])
def test_a_model_has_the_same_gradient(make, dtype):
    model, x = make(), tf.constant(np.random.default_rng(0).uniform(size=(4, 28, 28, 1)), "float32")

    plain, none = input_gradient(model, x, dtype, fast=False)
    ours, blocks = input_gradient(model, x, dtype)

    assert (none, blocks) == (0, 1)
    rounding = 1e-5 if dtype is None else 2e-2
    np.testing.assert_allclose(ours, plain, rtol=0, atol=rounding * np.abs(plain).max())


def test_only_plain_convolutions_of_few_channels_are_taken():
    layers = [
        keras.layers.Conv2D(8, 3),
        keras.layers.Conv2D(8, 3),
        keras.layers.Conv2D(4, 3, dilation_rate=2, padding="same"),
        keras.layers.DepthwiseConv2D(3),
        kr.layers.BinaryConv2D(4, 3, use_bias=False),
        keras.layers.GlobalAveragePooling2D(),
    ]
    model = keras.Sequential([keras.Input((20, 20, 3)), *layers])

    with fast_image_gradients(model):
        taken = ["convolution_op" in vars(layer) for layer in layers]

    assert taken == [True] + [False] * 5
    assert not any("convolution_op" in vars(layer) for layer in layers)


def test_unknown_sizes_keep_the_usual_gradient():
    inputs = keras.Input((None, None, 3))
    outputs = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3)(inputs))
    model = keras.Model(inputs, outputs)
    x = tf.random.stateless_uniform((2, 12, 12, 3), (0, 0))

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3))])
    def gradient(x):
        with fast_image_gradients(model), tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(model(x) ** 2)
        return tape.gradient(value, x)

    np.testing.assert_allclose(
        gradient(x), input_gradient(model, x, fast=False)[0], rtol=1e-5, atol=1e-7
    )


@pytest.mark.skipif(not LEGACY, reason="Keras 3 refuses more than one axis of batches")
def test_several_axes_of_batches_keep_the_usual_gradient():
    layer = keras.layers.Conv2D(8, 3)
    model = keras.Sequential([keras.Input((2, 12, 12, 3)), layer])
    x = tf.random.stateless_uniform((2, 2, 12, 12, 3), (0, 0))

    plain, _ = input_gradient(model, x, fast=False)
    ours, blocks = input_gradient(model, x)

    assert blocks == 0
    np.testing.assert_array_equal(ours, plain)


def test_the_model_is_as_before_after_an_error():
    model = kr.zoo.small_cnn()

    with pytest.raises(RuntimeError, match="stop"), fast_image_gradients(model):
        raise RuntimeError("stop")

    assert "convolution_op" not in vars(model.get_layer("conv1"))
    with fast_image_gradients(lambda x: x):
        pass


@pytest.mark.parametrize(
    "objective", [kr.objectives.Madry(), kr.objectives.Free(2), kr.objectives.GradientPenalty(0.1)]
)
def test_training_gives_the_same_weights(objective, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = np.float32(rng.uniform(size=(64, 28, 28, 1))), rng.integers(0, 10, 64)

    def trained():
        model = kr.zoo.small_cnn(seed=1)
        trainer = kr.AdversarialTraining(model, kr.attacks.PGD(0.1, steps=2), objective, seed=3)
        trainer.compile(keras.optimizers.SGD(0.05), jit_compile=False)
        trainer.fit(x, y, batch_size=32, epochs=1, shuffle=False, verbose=0)
        return model.get_weights()

    ours = trained()
    monkeypatch.setattr("keras_robust._image_gradient._CHANNELS", 0)
    for found, expected in zip(ours, trained(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
