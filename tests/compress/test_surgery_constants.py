"""Constant channels: what is called constant is, on random inputs, with that value."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_robust._keras import keras
from keras_robust.compress._surgery_constants import constants, foldable, mixing
from keras_robust.compress._surgery_units import Units

layers = keras.layers


def observed(model, x):
    """Slot -> its values on `x`."""
    units, found = Units(model), {}
    step = lambda call, args, kwargs: call.layer(*args, **kwargs)  # noqa: E731
    units.graph.run(tf.constant(x), step, lambda slot, value: found.update({slot: value.numpy()}))
    return units, found


def randomize(model, generator, zeros=0.5):
    """Random weights, some outputs of which depend on nothing."""
    for layer in model.layers:
        weights = [generator.uniform(0.2, 1.0, w.shape) for w in layer.get_weights()]
        if weights and "Normalization" in type(layer).__name__:
            weights[0] *= generator.uniform(size=weights[0].shape) > zeros
        elif weights:
            size = weights[0].shape[-2 if "Depthwise" in type(layer).__name__ else -1]
            keep = generator.uniform(size=size) > zeros
            keep = keep[:, None] if "Depthwise" in type(layer).__name__ else keep
            weights[0] *= keep
        layer.set_weights(weights)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["same", "valid"]), st.booleans())
def test_constant_channels_are_constant(seed, padding, bias):
    inputs = keras.Input((5, 5, 2))
    x = layers.Conv2D(5, 3, padding=padding, use_bias=bias)(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("tanh")(x)
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=bias, depth_multiplier=1)(x)
    z = layers.Concatenate()([layers.Add()([x, y]), layers.Multiply()([x, y])])
    z = layers.ZeroPadding2D()(layers.AveragePooling2D(2, padding="same")(z))
    z = layers.SeparableConv2D(4, 2, activation="relu", use_bias=bias)(z)
    z = layers.Dropout(0.3)(layers.Rescaling(2.0, -1.0)(z))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(z)))
    generator = np.random.default_rng(seed)
    randomize(model, generator)
    units, found = observed(model, generator.normal(size=(6, 5, 5, 2)).astype("float32"))
    said, some = constants(units), 0
    for slot, values in found.items():
        flat = values.reshape(-1, values.shape[-1])
        for channel, value in enumerate(said[slot]):
            if np.isfinite(value):
                some += 1
                np.testing.assert_allclose(flat[:, channel], value, rtol=1e-4, atol=1e-5)
    assert some


def test_what_varies_is_not_called_constant():
    """A filter of zeros with a bias is constant, but not behind a padded convolution."""
    inputs = keras.Input((4, 4, 1))
    x = layers.Conv2D(2, 1, name="a")(inputs)
    model = keras.Model(inputs, layers.Conv2D(1, 3, padding="same", name="b")(x))
    kernel = np.array([1.0, 0.0]).reshape(1, 1, 1, 2)
    model.get_layer("a").set_weights([kernel, np.array([0.0, 3.0])])
    units = Units(model)
    said = constants(units)
    slots = [call.outputs[0] for call in units.graph.calls]
    np.testing.assert_array_equal(said[slots[0]], [np.nan, 3.0])
    assert np.isnan(said[slots[1]]).all()
    use = units.makers()["b"]
    assert foldable(use, said[slots[0]]).tolist() == [False, False]
    assert foldable(use, np.array([np.nan, 0.0])).tolist() == [False, True]


@pytest.mark.parametrize("multiplier", [1, 2])
def test_separable_convolutions_as_matrices(multiplier, rng):
    layer = layers.SeparableConv2D(4, 2, depth_multiplier=multiplier, use_bias=False)
    layer.build((None, 2, 2, 3))
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    weights = layer.get_weights()
    weights[1][:, :, 2 * multiplier : 3 * multiplier] = 0  # The third input leads nowhere.
    layer.set_weights(weights)
    found = mixing(layer)
    for channel in range(3):
        x = np.zeros((1, 2, 2, 3), "float32")
        x[..., channel] = 1
        np.testing.assert_allclose(layer(x)[0, 0, 0], found.total[channel], atol=1e-5)
    assert found.used.any(axis=1).tolist() == [True, True, False]
    assert not found.padded
