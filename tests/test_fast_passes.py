"""Passes of an attack are faster inside `fast_passes`, and compute what they computed."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._fast_passes import fast_passes
from keras_robust._keras import LEGACY, computing_in, keras


def input_gradient(model, x, dtype=None, fast=True):
    @tf.function
    def run(x):
        with computing_in(model, dtype), fast_passes(model, fast):
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = tf.reduce_sum(tf.cast(model(x, training=False), tf.float32) ** 2)
        return tape.gradient(value, x), run_graph()

    def run_graph():
        names = [op.type for op in tf.compat.v1.get_default_graph().get_operations()]
        return tf.constant([names.count(kind) for kind in ("DepthToSpace", "FusedBatchNormV3")])

    gradient, counts = run(x)
    return gradient.numpy(), *counts.numpy().tolist()


@pytest.mark.parametrize("dtype", [None, "bfloat16", "float16"])
@pytest.mark.parametrize("make", [kr.zoo.small_cnn, kr.zoo.lenet5])
def test_a_model_has_the_same_gradient(make, dtype):
    model, x = make(), tf.constant(np.random.default_rng(0).uniform(size=(4, 28, 28, 1)), "float32")

    plain, none, _ = input_gradient(model, x, dtype, fast=False)
    ours, blocks, _ = input_gradient(model, x, dtype)

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

    with fast_passes(model):
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
        with fast_passes(model), tf.GradientTape() as tape:
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

    plain, *_ = input_gradient(model, x, fast=False)
    ours, blocks, _ = input_gradient(model, x)

    assert blocks == 0
    np.testing.assert_array_equal(ours, plain)


def test_the_model_is_as_before_after_an_error():
    model = kr.zoo.small_cnn()

    with pytest.raises(RuntimeError, match="stop"), fast_passes(model):
        raise RuntimeError("stop")

    assert "convolution_op" not in vars(model.get_layer("conv1"))
    with fast_passes(lambda x: x):
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
    monkeypatch.setattr("keras_robust._fast_passes._CHANNELS", 0)
    for found, expected in zip(ours, trained(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.skipif(LEGACY, reason="tf_keras does not give them to XLA")
@pytest.mark.parametrize("keywords", [{"strides": 2}, {"dilation_rate": 2, "padding": "same"}])
def test_convolutions_in_groups_are_taken_apart(keywords, monkeypatch):
    """With the gradients of inputs and kernel that Keras computes."""
    layer = keras.layers.Conv2D(6, 3, groups=3, **keywords)
    model = keras.Sequential([keras.Input((9, 8, 12)), layer])
    x = tf.random.stateless_normal((2, 9, 8, 12), (0, 0))

    @tf.function
    def gradients(x, fast):
        with fast_passes(model, fast), tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(model(x) ** 2)
        return tape.gradient(value, [x, layer.kernel.value])

    for ours, plain in zip(gradients(x, True), gradients(x, False), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=0, atol=1e-5 * np.abs(plain).max())
    with fast_passes(model):
        assert "convolution_op" in vars(layer)
    monkeypatch.setattr("keras_robust._fast_passes._GROUPS", 2)
    with fast_passes(model):
        assert "convolution_op" not in vars(layer)


def normalized(filters=16, seed=0, **keywords):
    """A convolution and BatchNormalization with statistics and parameters of some size."""
    norm = keras.layers.BatchNormalization(**keywords)
    conv = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)
    model = keras.Sequential([keras.Input((8, 8, 8)), conv, norm, keras.layers.ReLU()])
    rng = np.random.default_rng(seed)
    norm.set_weights([rng.uniform(0.5, 2.0, weight.shape) for weight in norm.get_weights()])
    return model, norm


@pytest.mark.parametrize("keywords", [{}, {"scale": False}, {"center": False, "epsilon": 0.1}])
def test_normalization_in_bfloat16_is_one_operation_each_way(keywords):
    model, _ = normalized(**keywords)
    x = tf.random.stateless_normal((4, 8, 8, 8), (0, 0))

    plain, *_ = input_gradient(model, x, "bfloat16", fast=False)
    ours, _, fused = input_gradient(model, x, "bfloat16")
    exact, *_ = input_gradient(model, x, fast=False)

    assert fused == 2
    scale = np.abs(exact).max()
    np.testing.assert_allclose(ours, plain, rtol=0, atol=2e-2 * scale)
    # No further from float32 than Keras's own operations are.
    assert np.abs(ours - exact).mean() < 1.1 * np.abs(plain - exact).mean()


def test_few_channels_are_normalized_in_float32():
    """oneDNN has no fast kernel for them."""
    model, _ = normalized(filters=8)
    x = tf.random.stateless_normal((4, 8, 8, 8), (0, 0))
    plain, *_ = input_gradient(model, x, "bfloat16", fast=False)
    ours, _, fused = input_gradient(model, x, "bfloat16")
    assert fused == 0
    np.testing.assert_allclose(ours, plain, rtol=0, atol=2e-2 * np.abs(plain).max())


def test_float32_and_other_axes_are_normalized_by_keras():
    model, norm = normalized()
    x = tf.random.stateless_normal((4, 8, 8, 8), (0, 0))
    plain, _, fused_before = input_gradient(model, x, fast=False)
    ours, _, fused = input_gradient(model, x)
    assert fused == fused_before
    np.testing.assert_array_equal(ours, plain)
    rows = keras.layers.BatchNormalization(axis=1)
    other = keras.Sequential([keras.Input((6, 5, 4)), rows])
    with fast_passes(model), fast_passes(other):
        assert "call" in vars(norm) and "call" not in vars(rows)
    assert "call" not in vars(norm)


@pytest.mark.parametrize("filters", [16, 8])
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize("keywords", [{}, {"scale": False, "center": False, "momentum": 0.5}])
def test_training_uses_and_moves_the_statistics_of_the_batch(filters, dtype, keywords):
    """As Keras does, whose variance divides by n, and its gradients."""
    x = tf.random.stateless_normal((3, 8, 8, 8), (0, 0))

    def trained(fast):
        model, norm = normalized(filters, **keywords)
        kernel = model.layers[0].kernel
        kernel.assign(np.random.default_rng(1).normal(size=kernel.shape))
        variables = [v if isinstance(v, tf.Variable) else v.value for v in model.trainable_weights]
        # Passes in bfloat16 use tensors in the place of the variables.
        variables = variables if dtype is None else []

        @tf.function
        def run(x):
            with computing_in(model, dtype), fast_passes(model, fast), tf.GradientTape() as tape:
                tape.watch(x)
                value = tf.cast(model(x, training=True), tf.float32)
                loss = tf.reduce_sum(value**2 * tf.range(filters, dtype=tf.float32))
            return value, *tape.gradient(loss, [x, *variables])

        return *run(x), norm.moving_mean, norm.moving_variance

    rounding = 1e-5 if dtype is None else 2e-2
    for ours, plain in zip(trained(True), trained(False), strict=True):
        ours, plain = np.asarray(ours), np.asarray(plain)
        np.testing.assert_allclose(ours, plain, rtol=0, atol=rounding * max(1, np.abs(plain).max()))


@pytest.mark.skipif(LEGACY, reason="tf_keras has always done it")
def test_training_is_one_operation_each_way():
    model, norm = normalized()

    def operations(**keywords):
        @tf.function
        def run(x):
            with fast_passes(model), tf.GradientTape() as tape:
                tape.watch(x)
                value = tf.reduce_sum(model(x, **keywords))
            return tape.gradient(value, x)

        graph = run.get_concrete_function(tf.TensorSpec((4, 8, 8, 8))).graph
        kinds = [op.type for op in graph.get_operations()]
        return kinds.count("FusedBatchNormV3"), kinds.count("FusedBatchNormGradV3")

    assert operations(training=True) == (1, 1)
    assert operations(training=False) == (0, 0)
    norm.trainable = False
    assert operations(training=True) == (0, 0)


def test_a_model_of_mixed_precision_is_attacked_the_same(monkeypatch):
    model = kr.zoo.resnet18(seed=0)
    with computing_in(model, "bfloat16"):
        x = np.random.default_rng(0).uniform(size=(4, 32, 32, 3)).astype("float32")
        attack, y = kr.attacks.PGD(8 / 255, steps=2, random_start=False), np.arange(4)
        found = attack(model, x, y)
        monkeypatch.setattr("keras_robust._fast_passes.normalizes_channels", lambda _: False)
        plain = attack(lambda x: model(x, training=False), x, y)
    # Signs of gradients next to zero fall either way.
    assert np.mean(np.asarray(found) == np.asarray(plain)) > 0.9
