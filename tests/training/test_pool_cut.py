"""A network is cut where everything goes through, and nowhere else."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.training._pool_cut import cut_at

layers = keras.layers


def residual():
    inputs = keras.Input((6,), name="pixels")
    stem = layers.Dense(5, "relu", name="stem")(inputs)
    branch = layers.Dense(5, name="branch")(stem)
    added = layers.Add(name="added")([stem, branch])
    return keras.Model(inputs, layers.Dense(3, name="logits")(added), name="residual")


def sequential():
    hidden = [
        layers.Dense(5, name="one"),
        layers.ReLU(name="relu"),
        layers.Dropout(0.5, name="drop"),
    ]
    return keras.Sequential(
        [keras.Input((6,)), *hidden, layers.Dense(4, "tanh", name="two"), layers.Dense(3)]
    )


@pytest.mark.parametrize("make", [residual, sequential])
def test_the_parts_together_are_the_model_and_share_its_weights(make, rng):
    model = make()
    x = tf.constant(rng.uniform(size=(4, 6)), tf.float32)
    cuts = cut_at(model)
    assert cuts[0].name == "input" and cuts[0].below is None and cuts[0].above is model
    for cut in cuts[1:]:
        between = cut.below(x, training=False)
        assert cut.shape == tuple(between.shape[1:])
        np.testing.assert_array_equal(cut.above(between, training=False), model(x, training=False))
        own = {id(weight) for weight in model.weights}
        assert {id(w) for w in (*cut.below.weights, *cut.above.weights)} == own


def test_by_default_where_a_kernel_is_fed():
    assert [cut.name for cut in cut_at(sequential())] == ["input", "drop", "two"]
    # Nothing goes around "stem" and "added"; `branch` is passed by.
    assert [cut.name for cut in cut_at(residual())] == ["input", "stem", "added"]
    lenet = [cut.name for cut in cut_at(kr.zoo.lenet5())]
    assert lenet == ["input", "pool1", "flatten", "relu1"]


def test_by_name_in_the_order_of_the_network():
    names = [cut.name for cut in cut_at(sequential(), ["two", "input", "one", "two"])]
    assert names == ["input", "one", "two"]


@pytest.mark.parametrize(
    ("make", "names", "message"),
    [
        (sequential, ["three"], "`layers` names 'three', which is no layer of model"),
        (residual, ["branch"], "names 'branch', but the model 'residual' cannot be cut there"),
        (residual, ["logits"], "names 'logits', but the model 'residual' cannot be cut there"),
    ],
)
def test_refuses_names(make, names, message):
    with pytest.raises(ValueError, match=message):
        cut_at(make(), names)


def test_refuses_models_without_a_graph_of_layers():
    with pytest.raises(ValueError, match="'late' cannot be cut at a layer"):
        cut_at(keras.Sequential([layers.Dense(3)], name="late"))
    ends = [keras.Input((2,)), keras.Input((2,))]
    two = keras.Model(ends, layers.Dense(3)(layers.Add()(ends)))
    with pytest.raises(ValueError, match="has several inputs"):
        cut_at(two)
