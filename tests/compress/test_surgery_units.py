"""Which channels are tied together, and which must stay."""

import numpy as np
import pytest

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.compress._neurons import groups_of
from keras_robust.compress._surgery_units import Units

layers = keras.layers


def conv(filters, name, **settings):
    return layers.Conv2D(filters, 3, padding="same", name=name, **settings)


def model_of(build, shape=(4, 4, 2)):
    inputs = keras.Input(shape)
    x = layers.GlobalAveragePooling2D()(build(inputs))
    return keras.Model(inputs, layers.Dense(3, name="logits")(x))


def names(model):
    return [group.names for group in groups_of(Units(model))]


def test_an_add_ties_layers_a_chain_does_not():
    def build(x):
        x = conv(4, "a")(x)
        y = conv(4, "c")(layers.ReLU()(conv(5, "b")(x)))
        return layers.Add()([x, y])

    assert names(model_of(build)) == [["b"], ["a", "c"]]


def test_flatten_repeats_and_depthwise_hands_on():
    inputs = keras.Input((2, 3, 1))
    x = layers.Conv2D(2, 1, name="a")(inputs)
    x = layers.DepthwiseConv2D(1, depth_multiplier=2, name="d")(x)
    flat = layers.Flatten()(x)
    units = Units(keras.Model(inputs, layers.Dense(2, name="logits")(flat)))
    use = units.makers()["logits"]
    one, two = units.makers()["a"].outputs
    assert use.inputs.tolist() == [one, one, two, two] * 6
    assert list(units.makers()) == ["a", "logits"]


def test_concatenate_keeps_channels_apart_and_one_layer_can_share_with_two():
    def build(x):
        both = layers.Concatenate()([conv(2, "a")(x), conv(3, "b")(x)])
        return layers.Add()([both, conv(5, "c")(x)])

    model = model_of(build)
    units = Units(model)
    made = {name: use.outputs.tolist() for name, use in units.makers().items()}
    assert made["c"] == made["a"] + made["b"] and len(set(made["c"])) == 5
    (group,) = groups_of(units)
    assert sorted(group.names) == ["a", "b", "c"]


def test_a_layer_called_twice_ties_what_it_is_given():
    shared = conv(4, "shared")

    def build(x):
        return shared(shared(conv(4, "a")(x)))

    assert names(model_of(build)) == [["a", "shared"]]


@pytest.mark.parametrize(
    "layer, why",
    [
        (lambda: layers.LayerNormalization(name="odd"), "no layer of type LayerNormalization"),
        (lambda: conv(4, "odd", groups=2), "in 2 groups"),
        (lambda: kr.layers.LowRankVirtual(2, name="odd"), "no layer of type LowRankVirtual"),
        (lambda: layers.Softmax(name="odd"), "no layer of type Softmax"),
        (lambda: layers.BatchNormalization(axis=1, name="odd"), "its axis is not the last"),
        (lambda: conv(4, "odd", activation="softmax"), "softmax is not elementwise"),
        (lambda: layers.Rescaling([1.0, 2.0, 1.0, 1.0], name="odd"), "by its own number"),
        (lambda: layers.Dropout(0.1, (None, 1, 1, 4), name="odd"), "a shape of its own"),
        (lambda: layers.Permute((2, 1, 3), name="odd"), "no layer of type Permute"),
        (lambda: layers.Reshape((4, 8, 2), name="odd"), "it reshapes the last axis"),
    ],
)
def test_what_surgery_does_not_know_is_left_as_it_is(layer, why):
    model = model_of(lambda x: conv(4, "b")(layer()(conv(4, "a")(x))))
    units = Units(model)
    assert names(model) == [["b"]]
    reasons = {units.fixed[unit] for unit in units.makers()["a"].outputs.tolist()}
    assert len(reasons) == 1
    reason = reasons.pop()
    assert reason.startswith("layer 'odd' stands in the way: ") and reason.endswith(why)


def test_input_output_and_operators_stay():
    model = model_of(lambda x: conv(4, "a")(x) * 2.0)
    assert names(model) == []
    units = Units(model)
    assert set(units.fixed.values()) >= {"it is the model's input", "it makes the model's output"}


def test_resnet18_has_a_set_of_units_a_stage():
    model = kr.zoo.resnet18((8, 8, 3))
    tied = [group for group in groups_of(Units(model)) if len(group.names) > 1]
    assert [len(group.units) for group in tied] == [64, 128, 256, 512]
    assert [len(group.names) for group in tied] == [3, 3, 3, 3]
    assert np.all(np.diff(tied[0].units) > 0)
