"""Hints: what the student's lower layers learn from the teacher's, and what stays as it was."""

import numpy as np
import pytest
import tensorflow as tf

from keras_robust._keras import keras
from keras_robust.transfer import fit_hints


def dense(width, seed, inputs=6):
    def start(number):
        return keras.initializers.GlorotUniform(seed=10 * seed + number)

    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((inputs,)),
            layers.Dense(width, kernel_initializer=start(0), name="low"),
            layers.Dense(width, "relu", kernel_initializer=start(1), name="high"),
            layers.Dense(3, kernel_initializer=start(2), name="logits"),
        ]
    )


def test_layers_below_learn_the_teachers_and_those_above_stay(rng):
    """A linear layer of enough units can say all that the teacher's says: the loss goes to 0."""
    x = rng.normal(size=(128, 6)).astype("float32")
    student, teacher = dense(8, 1), dense(4, 2)
    kept, above = teacher.get_weights(), student.get_layer("high").get_weights()
    below = student.get_layer("low").get_weights()
    adam = keras.optimizers.Adam(0.02)
    data = tf.data.Dataset.from_tensor_slices((x, np.zeros(128))).batch(64)
    logs = fit_hints(student, teacher, {"low": "low"}, data, optimizer=adam, epochs=150, verbose=0)
    assert logs.history["loss"][-1] < 1e-4 < 0.1 < logs.history["loss"][0]
    for old, new in zip(kept, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    for old, new in zip(above, student.get_layer("high").get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert np.any(below[0] != student.get_layer("low").get_weights()[0])
    # What it says now is the teacher's, up to a linear map.
    said = np.c_[keras.Model(student.inputs, student.get_layer("low").output)(x), np.ones(128)]
    wanted = keras.Model(teacher.inputs, teacher.get_layer("low").output)(x).numpy()
    rest = np.linalg.lstsq(said, wanted, rcond=None)[1]
    assert np.all(rest < 0.02)


def test_loss_is_half_the_mean_square_over_all_layers_and_repeats(rng):
    x = rng.normal(size=(16, 6)).astype("float32")
    pairs, runs = {"low": "low", "high": "high"}, []
    for _ in range(2):
        student, teacher = dense(5, 1), dense(4, 2)
        still = keras.optimizers.SGD(0.0)
        logs = fit_hints(student, teacher, pairs, x, optimizer=still, seed=3, verbose=0)
        runs.append(logs.history["loss"][0])
    expected = 0.0
    for number, name in enumerate(pairs):
        one, other = (
            keras.Model(m.inputs, m.get_layer(name).output)(x).numpy() for m in (student, teacher)
        )
        kernel = keras.initializers.GlorotUniform(seed=3 + number)((5, 4)).numpy()
        expected += 0.5 * np.mean((one @ kernel - other) ** 2)
    assert runs[0] == runs[1] == pytest.approx(expected, rel=1e-5)


def test_maps_of_convolutions(cnn, blobs):
    x, _ = blobs(12)
    student, teacher = cnn(seed=1), cnn(seed=2, batch_norm=True)
    names = [next(n.name for n in m.layers if "conv" in n.name) for m in (student, teacher)]
    logs = fit_hints(student, teacher, {names[0]: names[1]}, x, epochs=8, verbose=0)
    assert logs.history["loss"][-1] < logs.history["loss"][0]


def test_errors(cnn, rng):
    x = rng.normal(size=(4, 6)).astype("float32")
    student, teacher = dense(5, 1), dense(4, 2)
    with pytest.raises(TypeError, match="must map the student's layers"):
        fit_hints(student, teacher, ["low"], x)
    with pytest.raises(ValueError, match="`layers` is empty"):
        fit_hints(student, teacher, {}, x)
    with pytest.raises(ValueError, match="needs no hints from it"):
        fit_hints(student, student, {"low": "low"}, x)
    with pytest.raises(ValueError, match="lower"):
        fit_hints(student, teacher, {"lower": "low"}, x)
    conv = cnn()
    name = next(layer.name for layer in conv.layers if "conv" in layer.name)
    with pytest.raises(ValueError, match="equal but for the last axis"):
        fit_hints(student, conv, {"low": name}, x)
    with pytest.raises(TypeError):
        fit_hints(lambda x: x, teacher, {"low": "low"}, x)
    with pytest.raises(TypeError, match="`seed` must be an int, got None"):
        fit_hints(student, teacher, {"low": "low"}, x, seed=None)
    student.get_layer("low").trainable = False
    with pytest.raises(ValueError, match="guides 'low', but the student has nothing to train"):
        fit_hints(student, teacher, {"low": "low"}, x)
