"""`LowRankDense` and `LowRankConv2D` against plain pairs of layers, their start, their keeping."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import LEGACY, keras
from keras_robust.layers import LowRankConv2D, LowRankDense

KINDS = ["dense", "conv"]


def make(kind, rank=3, **settings):
    if kind == "dense":
        return LowRankDense(5, rank, name="low", **settings), (6,)
    return LowRankConv2D(5, 3, rank, name="low", **settings), (7, 7, 2)


def product(layer):
    """The kernel as a matrix, float64."""
    first, second = (np.asarray(w, "float64") for w in (layer.kernel_in, layer.kernel_out))
    return first.reshape(-1, layer.rank) @ second.reshape(layer.rank, -1)


def wrap(kind, **settings):
    layer, shape = make(kind, **settings)
    return keras.Sequential([keras.Input(shape), layer]), shape


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_dense_and_conv_of_the_product(kind, rng):
    model, shape = wrap(kind, activation="tanh")
    layer, x = model.layers[0], rng.normal(size=(4, *shape)).astype("float32")
    layer.bias.assign(rng.normal(size=5))
    if kind == "dense":
        expected = x @ product(layer)
    else:
        kernel = product(layer).reshape(3, 3, 2, 5).astype("float32")
        expected = tf.nn.conv2d(x, kernel, 1, "VALID").numpy()
    expected = np.tanh(expected + np.asarray(layer.bias))
    np.testing.assert_allclose(model(x), expected, atol=1e-5)
    assert np.linalg.matrix_rank(product(layer), 1e-6) == 3
    assert layer.count_params() == 3 * (product(layer).shape[0] + 5) + 5


@pytest.mark.parametrize(
    "settings",
    [
        {"strides": 2},
        {"strides": (1, 2), "padding": "same"},
        {"dilation_rate": (2, 1), "padding": "same", "use_bias": False},
        {"dilation_rate": 2},
    ],
)
def test_conv_settings_are_those_of_conv2d(settings, rng):
    layer, shape = make("conv", **settings)
    pair = [
        keras.layers.Conv2D(3, 3, **{**settings, "use_bias": False}),
        keras.layers.Conv2D(5, 1, use_bias=settings.get("use_bias", True)),
    ]
    model = keras.Sequential([keras.Input(shape), layer])
    plain = keras.Sequential([keras.Input(shape), *pair])
    plain.set_weights(model.get_weights())
    x = rng.normal(size=(2, *shape)).astype("float32")
    np.testing.assert_allclose(model(x), plain(x), atol=1e-5)
    assert model.output_shape == plain.output_shape
    assert tuple(layer.compute_output_shape((None, None, 7, 2)))[1:3] == (
        None,
        plain.output_shape[2],
    )


@pytest.mark.parametrize(
    ("name", "scale", "fan"),
    [("glorot_uniform", 1, "avg"), ("he_normal", 2, "in"), ("lecun_normal", 1, "in")],
)
@pytest.mark.parametrize("kind", KINDS)
def test_the_product_starts_with_the_variance_of_the_plain_layer(kind, name, scale, fan):
    if kind == "dense":
        layer, (window, inputs, outputs) = LowRankDense(60, 9, kernel_initializer=name), (1, 40, 60)
        layer.build((None, 40))
    else:
        layer, (window, inputs, outputs) = (
            LowRankConv2D(30, 3, 9, kernel_initializer=name),
            (9, 8, 30),
        )
        layer.build((None, 8, 8, 8))
    fans = {"in": window * inputs, "avg": window * (inputs + outputs) / 2}
    weights = product(layer)
    np.testing.assert_allclose(np.mean(weights**2), scale / fans[fan], rtol=1e-4)
    values = np.linalg.svd(weights, compute_uv=False)[:9]
    np.testing.assert_allclose(values, values[0], rtol=1e-4)
    sizes = [np.linalg.norm(w) for w in (layer.kernel_in, layer.kernel_out)]
    np.testing.assert_allclose(sizes[0], sizes[1], rtol=1e-4)


def test_seeds_repeat_and_differ():
    def start(seed):
        initializer = keras.initializers.GlorotUniform(seed=seed)
        layer = LowRankDense(6, 6, kernel_initializer=initializer)
        layer.build((None, 6))
        return layer.get_weights()

    one, same, other = start(1), start(1), start(2)
    np.testing.assert_array_equal(one[0], same[0])
    np.testing.assert_array_equal(one[1], same[1])
    assert np.abs(one[0] - other[0]).max() > 0.1 and np.abs(one[0] - one[1]).max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_settings_of_kernels_and_bias_have_effect(kind, rng):
    regularizers = keras.regularizers
    model, shape = wrap(
        kind,
        bias_initializer=keras.initializers.Constant(0.5),
        bias_regularizer=regularizers.L2(0.1),
        kernel_regularizer=regularizers.L1(0.01),
        bias_constraint="non_neg",
        kernel_constraint=keras.constraints.MaxNorm(0.25, axis=None),
    )
    layer = model.layers[0]
    np.testing.assert_array_equal(layer.bias, [0.5] * 5)
    first, second = (np.abs(np.asarray(w)).sum() for w in (layer.kernel_in, layer.kernel_out))
    exact = [0.01 * first, 0.01 * second, 0.1 * 5 * 0.25]
    np.testing.assert_allclose(np.sort(model.losses), np.sort(exact), rtol=1e-5)

    def all_down(y, outputs):
        return tf.reduce_sum(outputs)

    model.compile(keras.optimizers.SGD(1.0), all_down)
    x = rng.uniform(size=(4, *shape)).astype("float32")
    model.fit(x, model(x), batch_size=4, verbose=0)
    np.testing.assert_array_equal(layer.bias, [0.0] * 5)
    for kernel in (layer.kernel_in, layer.kernel_out):
        assert np.linalg.norm(np.ravel(kernel)) == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_they_go_into_a_file_over_the_bridge_and_onto_a_device(kind, tmp_path, rng):
    settings = {"activation": "relu", "kernel_initializer": keras.initializers.HeNormal(seed=3)}
    layer, shape = make(kind, bias_constraint="non_neg", **settings)
    inputs = keras.Input((7, 7, 2))
    x = inputs if kind == "conv" else keras.layers.GlobalAveragePooling2D()(inputs)
    x = keras.layers.Dense(6, name="before")(x)
    flat = keras.layers.Flatten()(layer(x))
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(flat))
    images = rng.random((4, 7, 7, 2)).astype("float32")
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(images), model(images))
    assert again.get_layer("low").get_config() == layer.get_config()
    there, back = (kr.to_keras3, kr.from_keras3) if LEGACY else (kr.from_keras3, kr.to_keras3)
    other = there(model)
    np.testing.assert_allclose(other(images), model(images), atol=1e-5)
    assert type(back(other).get_layer("low")) is type(layer)
    exported = kr.export.tflite(model, tmp_path / "model.tflite", check=images)
    assert exported.agreement == 1.0


def test_the_other_keras_reads_the_file(tmp_path):
    from keras_robust.bridge import load

    model, _ = wrap("dense")
    (kr.to_keras3 if LEGACY else kr.from_keras3)(model).save(tmp_path / "model.keras")
    found = load(tmp_path / "model.keras").get_layer("low")
    assert type(found) is LowRankDense
    np.testing.assert_array_equal(found.kernel_in, model.layers[0].kernel_in)


def test_they_train_compiled_in_mixed_precision(rng):
    layer = LowRankConv2D(5, 3, 2, dtype="mixed_float16")
    layers = [layer, keras.layers.Flatten(), LowRankDense(3, 2, dtype="mixed_float16")]
    model = keras.Sequential([keras.Input((6, 6, 1)), *layers])
    before = [w.copy() for w in model.get_weights()]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=True)
    x = rng.random((8, 6, 6, 1)).astype("float32")
    model.fit(x, np.arange(8) % 3, batch_size=4, verbose=0)
    assert model(x).dtype == tf.float16 and layer.kernel_in.dtype in ("float32", tf.float32)
    for old, new in zip(before, model.get_weights(), strict=True):
        assert np.abs(old - new).max() > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LowRankDense(5, 0), "`rank` must be a whole number >= 1, got 0"),
        (lambda: LowRankDense(2.0, 1), "`units` must be a whole number >= 1, got 2.0"),
        (lambda: LowRankDense(5, 6).build((None, 9)), "at most 5, the smaller side of its 9 x 5"),
        (lambda: LowRankDense(5, 2).build((None, None)), "its number of inputs"),
        (
            lambda: LowRankDense(5, 2, kernel_initializer="zeros"),
            "`kernel_initializer` must be one that scales its variance",
        ),
        (lambda: LowRankConv2D(5, (3, 3, 3), 2), "`kernel_size` must be one whole number or two"),
        (lambda: LowRankConv2D(5, 3, 2, padding="causal"), '`padding` must be "valid" or "same"'),
        (
            lambda: LowRankConv2D(5, 3, 2, strides=2, dilation_rate=2),
            "cannot both be above 1",
        ),
        (lambda: LowRankConv2D(5, 3, 2).build((None, 9)), "takes images"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
