"""Models rebuilt with other layers: functional, sequential, nested, shared."""

import numpy as np
import pytest

from keras_robust._keras import keras
from keras_robust.compress._graph import Names, calls, check_graph, plain_layers, replace

layers = keras.layers


def nested():
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, "tanh", name="inside"), layers.BatchNormalization()],
        name="inner",
    )
    shared = layers.Dense(4, name="shared")
    inputs = keras.Input((4,), name="x")
    x = layers.Add(name="add")([inner(shared(inputs)), shared(inner(inputs))])
    return keras.Model(inputs, [layers.Dense(2, name="out")(x), x], name="outer")


def twice(layer):
    """The layer, then one that doubles."""
    if not isinstance(layer, layers.Dense):
        return None
    copy = layers.Dense.from_config(layer.get_config())
    return [(copy, layer.get_weights()), (layers.Rescaling(2.0, name=f"{layer.name}_2"), [])]


def test_without_replacements_the_model_is_the_same_and_apart(rng):
    model = nested()
    model.get_layer("shared").trainable = False
    copy = replace(model, lambda layer: None)
    x = rng.normal(size=(3, 4)).astype("float32")
    for a, b in zip(model(x), copy(x), strict=True):
        np.testing.assert_array_equal(a, b)
    assert copy.name == "outer" and type(copy.get_layer("inner")) is keras.Sequential
    assert not copy.get_layer("shared").trainable and copy.get_layer("out").trainable
    for mine in copy.weights:
        mine.assign(mine * 0 + 1)
    assert all(np.std(w) > 0 for w in model.get_layer("out").get_weights()[:1])


def test_replacements_are_called_wherever_the_layer_was(rng):
    model = nested()
    changed = replace(model, twice)
    x = rng.normal(size=(3, 4)).astype("float32")
    normalize = model.get_layer("inner").layers[-1]

    def shared(v):
        return 2 * model.get_layer("shared")(v)

    def inner(v):
        return normalize(2 * model.get_layer("inner").get_layer("inside")(v))

    expected = inner(shared(x)) + shared(inner(x))
    out, between = changed(x)
    np.testing.assert_allclose(between, expected, atol=1e-5)
    np.testing.assert_allclose(out, 2 * model.get_layer("out")(expected), atol=1e-5)
    assert len([own for own in plain_layers(changed) if own.name == "shared_2"]) == 1


def test_sequential_stays_sequential(rng):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="d")], name="line")
    changed = replace(model, twice)
    x = rng.normal(size=(2, 4)).astype("float32")
    assert type(changed) is keras.Sequential
    np.testing.assert_allclose(changed(x), 2 * model(x), atol=1e-6)


def test_calls_open_nested_models():
    found = [layer.name for layer, *_ in calls(nested())]
    assert found.count("shared") == 2 and found.count("inside") == 2
    assert "inner" not in found and found[-1] == "out"
    (_, given, outputs), *_ = [call for call in calls(nested()) if call[0].name == "add"]
    assert len(given) == 2 and tuple(outputs[0].shape) == (None, 4)


def test_names_are_free():
    names = Names(nested())
    assert [names(n) for n in ("new", "new", "inside")] == ["new", "new_2", "inside_2"]


def test_a_layer_without_a_config_is_named():
    class Own(layers.Layer):
        def __init__(self, size):
            super().__init__(name="own")
            self.size = size

        def get_config(self):
            return {}

        def call(self, x):
            return x

    model = keras.Sequential([keras.Input((4,)), Own(3)])
    with pytest.raises(ValueError, match=r"'own' \(Own\) cannot be rebuilt from its get_config"):
        replace(model, lambda layer: None)


def test_models_without_a_graph_are_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match=r"The model 'part' of `model` \(Own\) is subclassed"):
        check_graph(keras.Model(inputs, Own(name="part")(inputs)))
    with pytest.raises(ValueError, match="has no weights yet"):
        check_graph(keras.Sequential([layers.Dense(2)]))


def test_what_is_frozen_inside_a_wrapper_stays_so():
    inner = layers.Dense(4, name="inner")
    wrapper = layers.TimeDistributed(inner, name="wrapper")
    attention = layers.MultiHeadAttention(1, 2, name="attention")
    x = inputs = keras.Input((3, 2))
    x = wrapper(x)
    model = keras.Model(inputs, layers.Dense(2)(attention(x, x)))
    inner.trainable = False
    copy = replace(model, lambda layer: None)
    assert copy.get_layer("wrapper").trainable and not copy.get_layer("wrapper").layer.trainable
    assert len(copy.trainable_weights) == len(model.trainable_weights) == 10
