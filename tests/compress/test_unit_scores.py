"""Scores of units against numpy."""

import numpy as np
import pytest
import tensorflow as tf

from keras_robust._keras import keras
from keras_robust.compress import unit_scores

layers = keras.layers


def block():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 5, 2), name="x")
    x = layers.Conv2D(4, 3, padding="same", name="a")(inputs)
    y = layers.Activation("relu", name="relu_a")(x)
    y = layers.Conv2D(4, 3, padding="same", name="b")(y)
    x = layers.ReLU(name="relu_b")(layers.Add()([x, y]))
    x = layers.Conv2D(3, 3, activation="relu", name="c")(x)
    x = layers.Conv2D(3, 2, name="linear")(x)
    return keras.Model(inputs, layers.Dense(2, name="logits")(layers.Flatten()(x)))


@pytest.fixture(scope="module")
def model():
    return block()


def zeros(model, name, x):
    value = keras.Model(model.input, model.get_layer(name).output)(x).numpy()
    return np.mean(value == 0, axis=(0, 1, 2))


def test_apoz_counts_zeros_behind_each_relu(model, rng):
    x = rng.normal(size=(7, 5, 5, 2)).astype("float32")
    found = unit_scores(model, x, batch_size=3)
    assert list(found) == ["a", "b", "c", "linear"]
    # The Add makes one of a and b, which go through two ReLUs.
    tied = (zeros(model, "relu_a", x) + zeros(model, "relu_b", x)) / 2
    np.testing.assert_allclose(found["a"], tied, atol=1e-12)
    np.testing.assert_allclose(found["b"], tied, atol=1e-12)
    np.testing.assert_allclose(found["c"], zeros(model, "c", x), atol=1e-12)
    assert np.isnan(found["linear"]).all()
    assert 0 < np.min(tied) and np.max(tied) < 1
    batches = tf.data.Dataset.from_tensor_slices((x, np.zeros(7))).batch(4)
    np.testing.assert_allclose(unit_scores(model, batches)["c"], found["c"], atol=1e-12)


@pytest.mark.parametrize("score, order", [("l1", 1), ("l2", 2)])
def test_norms_are_those_of_the_incoming_weights(model, score, order):
    found = unit_scores(model, score=score)
    norm = {
        name: np.linalg.norm(
            model.get_layer(name).get_weights()[0].reshape(-1, len(values)), order, axis=0
        )
        for name, values in found.items()
    }
    np.testing.assert_allclose(found["a"], (norm["a"] + norm["b"]) / 2, rtol=1e-6)
    np.testing.assert_allclose(found["c"], norm["c"], rtol=1e-6)


def test_units_that_must_stay_have_no_score():
    inputs = keras.Input((4,))
    x = layers.Dense(4, "relu", name="a")(inputs)
    both = layers.Concatenate()([x, inputs])
    model = keras.Model(inputs, layers.Dense(2)(layers.Add()([both, layers.Dense(8, name="b")(x)])))
    found = unit_scores(model, score="l2")
    assert np.isnan(found["b"]).tolist() == [False] * 4 + [True] * 4
    assert list(found) == ["a", "b"]


def test_errors(model):
    with pytest.raises(ValueError, match="`score` must be one of.*got 'zeros'"):
        unit_scores(model, score="zeros")
    with pytest.raises(ValueError, match='score="apoz" counts zeros on inputs: give some'):
        unit_scores(model)
    with pytest.raises(ValueError, match=r"must have shape \(n, 5, 5, 2\).*got \(2, 5, 5, 3\)"):
        unit_scores(model, np.zeros((2, 5, 5, 3), "float32"))
    with pytest.raises(ValueError, match="`x` is empty"):
        unit_scores(model, tf.data.Dataset.from_tensor_slices(np.zeros((0, 5, 5, 2), "float32")))
    with pytest.raises(ValueError, match="`batch_size` must be a positive integer"):
        unit_scores(model, np.zeros((2, 5, 5, 2), "float32"), batch_size=0)
    with pytest.raises(TypeError, match="`x` must be floating point"):
        unit_scores(model, np.zeros((2, 5, 5, 2), int))
