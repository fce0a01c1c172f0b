"""A functional model followed call by call, and replayed on new inputs."""

import numpy as np
import pytest

from keras_robust._calls import calls_of, ends_of, input_like, key_of, rebuilt, replaced
from keras_robust._keras import keras


def test_replayed_calls_make_the_same_model(rng):
    inputs = keras.Input((4,), name="in")
    shared = keras.layers.Dense(4, name="shared")
    x = shared(shared(inputs))
    model = keras.Model(inputs, keras.layers.Add(name="add")([inputs, x]))
    names = [layer.name for layer, *_ in calls_of(model)]
    assert names == ["shared", "shared", "add"]
    tensors = {key_of(tensor): input_like(tensor) for tensor in model.inputs}
    for layer, args, kwargs, outputs in calls_of(model):
        args, kwargs = replaced((args, kwargs), tensors)
        result = layer(*args, **kwargs)
        output = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
        tensors[key_of(output)] = result
    given, returned = ends_of(model)
    given, returned = (part[0] if isinstance(part, list) else part for part in (given, returned))
    again = keras.Model(tensors[key_of(given)], tensors[key_of(returned)])
    data = rng.normal(size=(3, 4)).astype("float32")
    np.testing.assert_array_equal(again(data), model(data))


def test_a_layer_without_a_config_is_named():
    class Own(keras.layers.Layer):
        def __init__(self, size):
            super().__init__(name="odd")

        def get_config(self):
            return {}

    with pytest.raises(ValueError, match=r"Layer 'odd' \(Own\) cannot be rebuilt"):
        rebuilt(Own(3))
    copy = rebuilt(keras.layers.Dense(3, name="d"))
    assert (copy.units, copy.name) == (3, "d")
