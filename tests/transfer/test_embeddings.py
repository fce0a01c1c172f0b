"""What a layer makes of inputs."""

import numpy as np
import pytest

from keras_robust._keras import keras
from keras_robust.transfer import embeddings


def test_they_are_what_the_layer_gives_in_inference(rng, cnn):
    model = cnn(batch_norm=True)
    x = rng.uniform(size=(23, 6, 6, 1)).astype("float32")
    relu = next(layer for layer in model.layers if isinstance(layer, keras.layers.ReLU))
    expected = keras.Model(model.inputs, relu.output).predict(x, verbose=0)
    before = [weight.numpy() for weight in model.weights]
    for layer in (relu.name, relu):
        z = embeddings(model, layer, x, batch_size=10)
        np.testing.assert_allclose(z, expected.reshape(23, -1), atol=1e-6)
        assert z.dtype == np.float32
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, weight.numpy())


def test_half_precision_is_given_as_float32(rng):
    dense = keras.layers.Dense(3, name="dense", dtype="mixed_float16")
    model = keras.Sequential([keras.Input((4,)), dense, keras.layers.Dense(2)])
    z = embeddings(model, "dense", rng.normal(size=(5, 4)).astype("float32"))
    assert z.dtype == np.float32 and z.shape == (5, 3)


def test_wrong_input_says_what_to_do(cnn):
    model, x = cnn(), np.zeros((2, 6, 6, 1), "float32")
    with pytest.raises(ValueError, match="'nothing' is no layer of model"):
        embeddings(model, "nothing", x)
    with pytest.raises(TypeError, match="`model` must be a Keras model"):
        embeddings(lambda x: x, "nothing", x)
    with pytest.raises(TypeError, match="`x` must be floating point"):
        embeddings(model, model.layers[1], x.astype(int))

    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="has no graph of layers"):
        embeddings(Own(), "nothing", x)
