"""Costs known by hand and from the papers."""

import json
import math

import pytest

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.compress._flops import count

layers = keras.layers


def sequential(shape, *given):
    return keras.Sequential([keras.Input(shape), *given])


def costs(shape, *given):
    found = count(sequential(shape, *given))
    return found.parameters, found.multiply_adds


def test_the_example_of_the_notes_72_against_26():
    assert costs((3, 3, 2), layers.Conv2D(4, 3, use_bias=False)) == (72, 72)
    pair = [layers.DepthwiseConv2D(3, use_bias=False), layers.Conv2D(4, 1, use_bias=False)]
    assert costs((3, 3, 2), *pair) == (26, 26)
    assert costs((3, 3, 2), layers.SeparableConv2D(4, 3, use_bias=False)) == (26, 26)


@pytest.mark.parametrize(
    ("shape", "layer", "expected"),
    [
        ((5,), layers.Dense(7), (42, 35)),
        ((3, 5), layers.Dense(7), (42, 105)),
        ((8, 8, 2), layers.Conv2D(4, 3, padding="same", strides=2), (76, 16 * 72)),
        ((8, 8, 4), layers.Conv2D(6, 1, groups=2, use_bias=False), (12, 64 * 12)),
        ((8, 8, 2), layers.Conv2D(4, 3, dilation_rate=2, use_bias=False), (72, 16 * 72)),
        ((8, 8, 2), layers.DepthwiseConv2D(3, depth_multiplier=2), (40, 36 * 36)),
        ((9, 2), layers.Conv1D(4, 3, use_bias=False), (24, 7 * 24)),
        ((4, 4, 2), layers.Conv2DTranspose(3, 2, strides=2, use_bias=False), (24, 16 * 24)),
        ((4, 4, 2), layers.BatchNormalization(), (8, 0)),
        ((4, 4, 2), layers.MaxPooling2D(), (0, 0)),
        ((4, 4, 2), layers.PReLU(), (32, 0)),
        ((5,), kr.layers.LowRankVirtual(2), None),
    ],
)
def test_each_kind_by_hand(shape, layer, expected):
    found = costs(shape, layer)
    assert found[1] == 0 if expected is None else found == expected


def test_mobilenet_costs_what_table_4_says():
    """569M multiply-adds and 4.2M parameters, Howard et al. 2017."""
    model = keras.applications.MobileNet(weights=None)
    found = count(model)
    assert found.multiply_adds == pytest.approx(569e6, rel=0.01)
    moving = sum(math.prod(weight.shape) for weight in model.non_trainable_weights)
    assert found.parameters - moving == pytest.approx(4.2e6, rel=0.01)
    assert found.multiply_adds == sum(row["multiply_adds"] for row in found.layers)


def test_shared_layers_and_nested_models_are_counted_call_by_call():
    inner = sequential((4,), layers.Dense(4, use_bias=False, name="inner"))
    shared = layers.Dense(4, use_bias=False, name="shared")
    inputs = keras.Input((4,))
    x = layers.Add()([shared(inputs), inner(shared(inputs))])
    found = count(keras.Model(inputs, layers.Dense(2, use_bias=False, name="out")(x)))
    rows = {row["layer"]: row for row in found.layers}
    assert (rows["shared"]["calls"], rows["shared"]["multiply_adds"]) == (2, 32)
    assert (rows["inner"]["calls"], rows["inner"]["multiply_adds"]) == (1, 16)
    assert (found.parameters, found.multiply_adds) == (40, 56)


def test_it_prints_and_goes_into_json():
    found = count(sequential((8, 8, 2), layers.Conv2D(4, 3, name="conv"), layers.Flatten()))
    head, conv, *_, last = str(found).splitlines()
    assert head.split() == ["layer", "kind", "output", "parameters", "multiply-adds"]
    assert conv.split() == ["conv", "Conv2D", *"6 x 6 x 4".split(), "76", "2,592"]
    assert last.split() == ["all", "76", "2,592"]
    assert json.loads(json.dumps(found.to_dict()))["multiply_adds"] == 2592


def test_what_is_not_known_is_named():
    model = sequential((5, 3), layers.LSTM(2, name="memory"), layers.Dense(2, use_bias=False))
    with pytest.raises(ValueError, match=r"not known: \{'memory': 'LSTM'\}.*allow_unknown=True"):
        count(model)
    found = count(model, allow_unknown=True)
    assert found.unknown == ("memory",) and found.multiply_adds == 4
    assert "unknown" in str(found)


def test_errors():
    open_shape = sequential((None, None, 2), layers.Conv2D(4, 3, name="conv"))
    with pytest.raises(ValueError, match="'conv' has the open shape"):
        count(open_shape)
    with pytest.raises(TypeError, match="`model` must be a Keras model, got function"):
        count(lambda x: x)
    with pytest.raises(ValueError, match="has no weights yet"):
        count(keras.Sequential([layers.Dense(2)]))

    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match=r"\(Own\) is subclassed"):
        count(Own())
