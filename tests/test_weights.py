"""A copy computes what the original does, an adapted Normalization included."""

import numpy as np
import pytest

import keras_robust as kr
from keras_robust._keras import LEGACY, keras
from keras_robust._weights import give_weights

layers = keras.layers
X = np.random.default_rng(0).normal(5.0, 3.0, (32, 6, 6, 2)).astype("float32")


def adapted():
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((6, 6, 2)), layers.Normalization(name="norm")])
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, activation="relu")(inner(inputs))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    inner.get_layer("norm").adapt(X)
    return model


def packed(model):
    kr.compress.pack(model, "m.krz")
    return kr.compress.unpack("m.krz")


def given(model):
    twin = keras.models.clone_model(model)
    give_weights(twin, model.get_weights())
    return twin


def bridged(model):
    pytest.importorskip("tf_keras")
    there, back = (kr.to_keras3, kr.from_keras3) if LEGACY else (kr.from_keras3, kr.to_keras3)
    return back(there(model))


@pytest.mark.parametrize(
    "copied",
    [
        packed,
        given,
        bridged,
        kr.compress.keep_zeros,
        kr.compress.remove_dead,
        lambda model: kr.compress.Prune(0.0).apply(model),
    ],
    ids=["packed", "given", "bridged", "keep_zeros", "remove_dead", "pruned"],
)
def test_an_adapted_normalization_is_copied(copied, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = adapted()
    expected = model(X).numpy()
    assert np.abs(expected - keras.models.clone_model(model)(X)).max() > 0.1
    np.testing.assert_allclose(copied(model)(X), expected, rtol=1e-5, atol=1e-5)
