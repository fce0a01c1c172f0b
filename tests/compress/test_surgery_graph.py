"""Models as flat lists of calls, and run from them."""

import numpy as np
import pytest
import tensorflow as tf

from keras_robust._keras import LEGACY, keras
from keras_robust.compress._surgery_graph import Graph

layers = keras.layers


def nested():
    """A functional model that holds a functional one (twice), which holds a Sequential one."""
    keras.utils.set_random_seed(2)
    head = keras.Sequential([keras.Input((6,)), layers.Dense(6, name="dense"), layers.ReLU()])
    a = keras.Input((6,))
    inner = keras.Model(a, layers.Add()([layers.BatchNormalization()(head(a)), a]))
    b = keras.Input((6,))
    x = inner(inner(layers.Dense(6, name="dense")(b)))
    return keras.Model(b, layers.Dense(3, name="logits")(x))


def call(call, args, kwargs):
    return call.layer(*args, **kwargs)


def test_nested_and_sequential_models_run_alike(rng):
    x = tf.constant(rng.normal(size=(3, 6)).astype("float32"))
    sequential = keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.ReLU()])
    for model, count in ((nested(), 10), (sequential, 2)):
        graph = Graph(model)
        assert len(graph.calls) == count
        assert not any(isinstance(each.layer, keras.Model) for each in graph.calls)
        np.testing.assert_array_equal(graph.run(x, call), model(x))
        assert len(set(graph.names.values())) == len({id(each.layer) for each in graph.calls})


def test_values_are_let_go_when_nothing_needs_them():
    model = keras.Sequential([keras.Input((6,)), *(layers.Dense(6) for _ in range(4))])
    alive = []

    def step(each, args, kwargs):
        alive.append(args[0])
        return args[0] + 1.0

    seen = []
    graph = Graph(model)
    out = graph.run(tf.zeros([1, 6]), step, lambda slot, value: seen.append(slot))
    assert seen == [each.outputs[0] for each in graph.calls] and float(out[0, 0]) == 4.0


@pytest.mark.skipif(not LEGACY, reason="Keras 3 hands on the model's own argument instead")
def test_a_model_called_with_training_false_hands_that_on():
    a = keras.Input((3,))
    inner = keras.Model(a, layers.BatchNormalization()(a))
    b = keras.Input((3,))
    graph = Graph(keras.Model(b, inner(b, training=False)))
    assert graph.calls[0].kwargs["training"] is False


class Own(keras.Model):
    def call(self, x):
        return x


def test_refusals():
    with pytest.raises(TypeError, match="must be a Keras model, got function"):
        Graph(lambda x: x)
    with pytest.raises(ValueError, match=r"`model` is a subclassed model \(Own\).*functional"):
        Graph(Own())
    with pytest.raises(ValueError, match="`model` has no weights yet"):
        Graph(keras.Sequential([layers.Dense(3)]))
    a = keras.Input((4,))
    with pytest.raises(ValueError, match="got 1 inputs and 2 outputs"):
        Graph(keras.Model(a, [layers.Dense(2)(a), layers.Dense(2)(a)]))
    with pytest.raises(ValueError, match=r"inside `model` is a subclassed model \(Own\)"):
        Graph(keras.Model(a, Own(name="own")(a)))
