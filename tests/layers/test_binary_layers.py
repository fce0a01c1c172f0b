"""The three binary layers: equal to plain ones, carried everywhere, and what they refuse."""

import json

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import LEGACY, keras
from keras_robust.layers import BinaryConv2D, BinaryDense, BinaryDepthwiseConv2D, counterpart
from keras_robust.layers._binary import glorot

X = np.random.default_rng(0).uniform(size=(3, 7, 7, 2)).astype("float32")
CASES = [
    (BinaryDense, keras.layers.Dense, {"units": 3, "activation": "relu"}, (2, 3)),
    (BinaryConv2D, keras.layers.Conv2D, {"filters": 3, "kernel_size": 3}, (18, 27)),
    (
        BinaryConv2D,
        keras.layers.Conv2D,
        {"filters": 4, "kernel_size": (3, 2), "strides": (2, 1), "padding": "same"},
        (12, 24),
    ),
    (
        BinaryConv2D,
        keras.layers.Conv2D,
        {"filters": 2, "kernel_size": 2, "dilation_rate": 3, "use_bias": False},
        (8, 8),
    ),
    (
        BinaryDepthwiseConv2D,
        keras.layers.DepthwiseConv2D,
        {"kernel_size": 3, "depth_multiplier": 2, "strides": 2, "padding": "same"},
        (9, 18),
    ),
]


@pytest.mark.parametrize(("kind", "plain", "settings", "fans"), CASES)
def test_equals_the_plain_layer_with_its_kernel(kind, plain, settings, fans):
    layer, twin = kind(name="mine", scale="glorot", **settings), plain(**settings)
    found = layer(X)
    twin.build(X.shape)
    weights = [layer.kernel] + ([0.5 + layer.bias.numpy()] if layer.use_bias else [])
    twin.set_weights([np.asarray(weight) for weight in weights])
    if layer.use_bias:
        layer.bias.assign(0.5 + layer.bias.numpy())
        found = layer(X)
    np.testing.assert_array_equal(found, twin(X))
    assert tuple(layer.compute_output_shape(X.shape)) == tuple(found.shape)
    assert tuple(layer.compute_output_shape((None, *X.shape[1:])))[1:] == tuple(found.shape)[1:]
    assert layer.magnitude == glorot(*fans) and layer.slope == 1 / glorot(*fans)
    again = kind.from_config(json.loads(json.dumps(layer.get_config())))
    assert again.get_config() == layer.get_config()
    np.testing.assert_array_equal(again(X), twin_without_bias(layer))


def twin_without_bias(layer):
    """The layer as it starts: the seed and the name give the kernel."""
    if layer.use_bias:
        layer.bias.assign(np.zeros_like(layer.bias.numpy()))
    return layer(X)


def test_dense_takes_more_axes():
    layer = BinaryDense(3, use_bias=False, name="deep")
    np.testing.assert_allclose(layer(X), X @ layer.kernel.numpy(), rtol=1e-5)


@pytest.fixture(scope="module")
def model():
    # Half precision inside, as a user of an accelerator has it.
    half = {"dtype": "mixed_float16", "stochastic": True}
    layers = [
        BinaryConv2D(4, 3, name="conv", **half),
        BinaryDepthwiseConv2D(3, name="depthwise", test_weights="sampled", **half),
        keras.layers.Flatten(),
        BinaryDense(3, name="logits", test_weights="real", **half),
    ]
    model = keras.Sequential([keras.Input(X.shape[1:]), *layers])
    model.compile(keras.optimizers.SGD(0.01), kr.losses.SquaredHinge())
    model.fit(X, np.array([0, 1, 2]), epochs=2, batch_size=3, verbose=0)
    return model


def test_real_weights_stay_float32(model):
    layer = model.get_layer("logits")
    assert tf.as_dtype(layer.latent.dtype) == tf.float32
    assert model(X).dtype == tf.float16 and int(layer._count) == 2
    exact = np.asarray(model.layers[-2](model.layers[1](model.layers[0](X))), "float32")
    exact = exact @ layer.real.numpy() + layer.bias.numpy()
    np.testing.assert_allclose(np.asarray(model(X), "float32"), exact, atol=0.02, rtol=0.01)


def test_saved_and_loaded(model, tmp_path):
    model.save(tmp_path / "model.keras")
    twin = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(twin(X), model(X))
    assert int(twin.get_layer("conv")._count) == 2
    for got, want in zip(twin.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(got, want)


def test_served_and_attacked_there(model, tmp_path):
    kr.export.serving(model, tmp_path / "served", version=1, check=X)
    loaded = tf.saved_model.load(str(tmp_path / "served" / "1"))
    served = loaded.signatures["serving_default"]
    x = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = served(images=x)["logits"]
    np.testing.assert_allclose(logits, model(X), atol=1e-3)
    assert np.abs(tape.gradient(logits, x)).max() > 0


def test_exported_to_tflite(tmp_path):
    layers = [BinaryConv2D(4, 3, name="c"), keras.layers.Flatten(), BinaryDense(3, name="o")]
    model = keras.Sequential([keras.Input(X.shape[1:]), *layers])
    done = kr.export.tflite(model, tmp_path / "model.tflite", check=X)
    assert done.agreement == 1.0


def test_the_bridge_carries_them_there_and_back(model, tmp_path):
    there, back = (kr.from_keras3, kr.to_keras3) if not LEGACY else (kr.to_keras3, kr.from_keras3)
    twin = there(model)
    for name, kind in (("conv", BinaryConv2D), ("depthwise", BinaryDepthwiseConv2D)):
        layer = twin.get_layer(name)
        assert type(layer) is counterpart(kind, layer.keras) and not isinstance(layer, kind)
        np.testing.assert_array_equal(layer.kernel, model.get_layer(name).kernel)
    assert type(back(twin).get_layer("logits")) is BinaryDense
    twin.save(tmp_path / "model.keras")
    from keras_robust.bridge import load

    loaded = load(tmp_path / "model.keras")
    assert type(loaded.get_layer("logits")) is BinaryDense
    np.testing.assert_array_equal(loaded(X), model(X))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"units": 0}, "`units` must be a whole number >= 1, got 0"),
        ({"test_weights": "signs"}, "`test_weights` must be one of .*, got 'signs'"),
        ({"stochastic": 1}, "`stochastic` must be True or False, got 1"),
        ({"use_bias": "no"}, "`use_bias` must be True or False, got 'no'"),
        ({"scale": 0}, '`scale` must be "glorot" or a number > 0, got 0'),
        ({"scale": True}, '`scale` must be "glorot" or a number > 0, got True'),
        ({"learning_rate_scale": "he"}, '`learning_rate_scale` must be "glorot" or a number'),
        ({"seed": 0.5}, "`seed` must be an int, got 0.5"),
    ],
)
def test_dense_refuses(settings, message):
    with pytest.raises(ValueError, match=message):
        BinaryDense(**{"units": 3, **settings})


def test_convolutions_refuse():
    with pytest.raises(ValueError, match='`padding` must be "valid" or "same", got'):
        BinaryConv2D(3, 3, padding="causal")
    with pytest.raises(ValueError, match="`filters` must be a whole number >= 1, got -1"):
        BinaryConv2D(-1, 3)
    with pytest.raises(ValueError, match="`kernel_size` must be a whole number or a pair"):
        BinaryConv2D(3, (3, 3, 3))
    with pytest.raises(ValueError, match="`strides` and `dilation_rate` cannot both be above 1"):
        BinaryConv2D(3, 3, strides=2, dilation_rate=2)
    with pytest.raises(ValueError, match=r"`strides` of a depthwise layer must be equal"):
        BinaryDepthwiseConv2D(3, strides=(1, 2))
    with pytest.raises(ValueError, match="`depth_multiplier` must be a whole number >= 1, got 0"):
        BinaryDepthwiseConv2D(3, depth_multiplier=0)


def test_inputs_are_checked_when_built():
    with pytest.raises(ValueError, match="takes inputs of 4 axes, the channels last, got shape"):
        BinaryConv2D(3, 3, name="c").build((None, 5))
    with pytest.raises(ValueError, match="needs to know the last axis of its input, got shape"):
        BinaryDense(3, name="d").build((None, None))
