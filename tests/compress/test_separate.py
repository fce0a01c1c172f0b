"""Convolutions as depthwise and pointwise ones: exact where they are, else the least squares."""

import numpy as np
import pytest

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.compress._separate import Separate
from keras_robust.compress._stage import Context

layers = keras.layers


def make(settings, inputs=6, multiplier=None, seed=0):
    """A convolution, with a kernel of `multiplier` windows an input channel or any kernel."""
    generator = np.random.default_rng(seed)
    conv = layers.Conv2D(8, 3, name="conv", **settings)
    model = keras.Sequential([keras.Input((9, 9, inputs)), conv])
    if multiplier is not None:
        windows = generator.normal(size=(9, inputs, multiplier))
        filters = generator.normal(size=(inputs, multiplier, 8))
        kernel = np.einsum("wim,imo->wio", windows, filters).reshape(3, 3, inputs, 8)
        conv.kernel.assign(kernel)
    if conv.bias is not None:
        conv.bias.assign(generator.normal(size=8))
    return model


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize(
    "settings",
    [
        {"activation": "relu"},
        {"strides": 2, "padding": "same", "use_bias": False},
        {"dilation_rate": 2, "padding": "same"},
    ],
)
def test_a_separable_kernel_is_kept_exactly(settings, multiplier, rng):
    model = make(settings, multiplier=multiplier)
    stage = Separate(depth_multiplier=multiplier)
    small = stage.apply(model)
    x = rng.normal(size=(2, 9, 9, 6)).astype("float32")
    np.testing.assert_allclose(small(x), model(x), rtol=1e-4, atol=1e-4)
    assert [layer.name for layer in small.layers] == ["conv_depthwise", "conv"]
    assert type(small.layers[0]) is layers.DepthwiseConv2D and small.layers[0].bias is None
    (row,) = stage.plan(model).rows
    assert row["error"] < 1e-6
    kernels = [w for layer in small.layers for w in layer.get_weights() if w.ndim > 1]
    assert row["weights_after"] == sum(w.size for w in kernels) == multiplier * 6 * (9 + 8)


def test_any_other_kernel_becomes_the_nearest_one():
    model = make({"use_bias": False})
    depthwise, pointwise = Separate().apply(model).get_weights()
    product = depthwise.reshape(9, 6, 1) * pointwise.reshape(1, 6, 8)
    kernel = model.get_weights()[0].reshape(9, 6, 8)
    lost = np.linalg.norm(kernel - product)
    values = np.linalg.svd(kernel.transpose(1, 0, 2), compute_uv=False)
    np.testing.assert_allclose(lost, np.sqrt(np.sum(values[:, 1:] ** 2)), rtol=1e-5)
    (row,) = Separate().plan(model).rows
    np.testing.assert_allclose(row["error"], lost / np.linalg.norm(kernel), rtol=1e-5)
    for channel in range(6):  # No change of a channel's window or filters comes nearer.
        window = np.linalg.lstsq(pointwise[0, 0, channel, :, None], kernel[:, channel].T, None)[0]
        np.testing.assert_allclose(window[0], depthwise.reshape(9, 6)[:, channel], atol=1e-5)


def test_the_layer_that_sees_the_image_stays_unless_named():
    inputs = keras.Input((9, 9, 3))
    x = layers.Conv2D(8, 3, name="first")(inputs)
    x = layers.Conv2D(8, 1, name="point")(x)
    model = keras.Model(inputs, layers.Conv2D(8, 3, name="second")(x))
    stage = Separate()
    assert stage.check(model, Context(1, 1)) == ["second"]
    assert [row["layer"] for row in Separate(["first"]).plan(model).rows] == ["first"]
    with pytest.raises(ValueError, match=r"'point' cannot be .*window of \(1, 1\) and 8 filters"):
        Separate(["point"]).apply(model)
    chosen = Separate(lambda layer: layer.name != "second").check(model, Context(1, 1))
    assert chosen == ["first"]


def test_as_a_stage_it_recovers_and_gives_a_plain_model(rng):
    model = make({"activation": "relu"})
    stage, context = Separate(), Context(epochs=1, steps=8)
    x = rng.normal(size=(32, 9, 9, 6)).astype("float32")
    target = np.asarray(model(x))
    wrapped = stage.wrap(model, context)
    before = float(np.mean((wrapped(x) - target) ** 2))
    wrapped.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=True)
    wrapped.fit(x, target, batch_size=8, epochs=10, verbose=0)
    plain = stage.strip(wrapped, model)
    assert float(np.mean((plain(x) - target) ** 2)) < 0.95 * before
    np.testing.assert_allclose(plain(x), wrapped(x), atol=1e-5)
    assert stage.callbacks(wrapped, context) == [] == stage.broken({}, {}, [], context)
    assert kr.compress.count(plain).multiply_adds == 49 * 6 * 17


@pytest.mark.parametrize(
    ("settings", "stage", "message"),
    [
        ({"groups": 2}, {}, "it has 2 groups"),
        ({"strides": (1, 2)}, {}, r"takes equal strides only, and it has \(1, 2\)"),
        ({}, {"depth_multiplier": 5}, "depth_multiplier=5; 4 is the most"),
    ],
)
def test_what_cannot_be_is_refused_by_name(settings, stage, message):
    with pytest.raises(ValueError, match=f"no layer to separate. 'conv': .*{message}"):
        Separate(**stage).apply(make(settings))
    with pytest.raises(ValueError, match=f"'conv' cannot be taken to separate: .*{message}"):
        Separate(["conv"], **stage).apply(make(settings))


def test_errors():
    with pytest.raises(ValueError, match="`depth_multiplier` must be a whole number >= 1, got 0"):
        Separate(depth_multiplier=0)
    with pytest.raises(TypeError, match="`layers` must be a sequence"):
        Separate("conv")
    dense = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="d")])
    with pytest.raises(ValueError, match="no layer to separate. 'd': Dense is no Conv2D"):
        Separate().apply(dense)
