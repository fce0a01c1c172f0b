"""Transfer tables on models whose errors are known."""

import json

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.analysis import minimum_distortion, transfer_matrix

pytestmark = pytest.mark.once

ATTACK = kr.attacks.DeepFool(norm="l2")


def looks_at(column):
    """A classifier that asks whether one entry is above a half."""

    def model(x):
        value = 10.0 * (x[:, column] - 0.5)
        return tf.stack([-value, value], axis=1)

    return model


@pytest.fixture
def data(rng):
    y = np.arange(40) % 2
    x = rng.uniform(0.2, 0.4, size=(40, 3)).astype("float32") + 0.4 * y[:, None].astype("float32")
    return x, y


def test_examples_cross_only_to_models_that_look_at_the_same(data):
    x, y = data
    models = {"first": looks_at(0), "twin": looks_at(0), "other": looks_at(1)}
    matrix = transfer_matrix(models, x, y, ATTACK, noise_rms=(0.01,))
    np.testing.assert_array_equal(matrix.errors, [[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(matrix.clean, [0, 0, 0])
    np.testing.assert_array_equal(matrix.noise[0.01], [0, 0, 0])
    np.testing.assert_array_equal(matrix.found, [1, 1, 1])
    # One entry of three moves by about .2: the rest is closed form.
    moved = np.abs(x[:, 0] - 0.5) / np.sqrt(3)
    assert matrix.distortion[0] == pytest.approx(moved.mean(), rel=0.05)
    assert np.all(matrix.control[matrix.errors == 1] < 0.6)


def test_the_control_has_the_size_of_the_row(data):
    x, y = data
    seen = []

    def spy(inputs):
        if tf.executing_eagerly():
            seen.append(inputs.numpy())
        return looks_at(0)(inputs)

    spied = transfer_matrix({"spy": spy}, x, y, ATTACK, rms=0.08, batch_size=len(x))
    attacked, noisy = seen[-3], seen[-2]
    for inputs in (attacked, noisy):
        size = np.sqrt(np.mean((np.float64(inputs) - x) ** 2, axis=1))
        np.testing.assert_allclose(size, 0.08, rtol=1e-3)
    assert spied.amplified == 0.08
    assert spied.distortion[0] == pytest.approx(0.08, rel=1e-4)


def test_amplified_examples_go_on_in_their_direction(data):
    x, y = data
    small = transfer_matrix({"m": looks_at(0)}, x, y, ATTACK, rms=0.01)
    large = transfer_matrix({"m": looks_at(0)}, x, y, ATTACK, rms=0.2)
    assert small.errors[0, 0] == 0 and large.errors[0, 0] == 1


def test_examples_for_chosen_targets_reach_them():
    """Three classes in the plane: the boundary to each has its own distance."""
    normals = np.array([[2.0, 0.0], [-1.0, 2.0], [-1.0, -2.0]])
    x = np.tile(np.float32([[0.6, 0.52]]), (2, 1))

    def model(x):
        return tf.matmul(x - 0.5, tf.constant(normals.T, tf.float32))

    ways = normals[0] - normals[1:]
    exact = ways @ (x[0] - 0.5) / np.linalg.norm(ways, axis=1) / np.sqrt(2)
    for target in (1, 2):
        matrix = transfer_matrix({"m": model}, x, [0, 0], targets=[target] * 2)
        assert matrix.distortion[0] == pytest.approx(exact[target - 1], rel=0.02)
        assert matrix.errors.tolist() == [[1.0]] and matrix.clean.tolist() == [0.0]


def test_known_distortions_are_used_again(data, monkeypatch):
    x, y = data
    models = {"a": looks_at(0), "b": looks_at(1)}
    known = {name: minimum_distortion(model, x, y, ATTACK) for name, model in models.items()}
    fresh = transfer_matrix(models, x, y, ATTACK)
    monkeypatch.setattr("keras_robust.analysis._transfer.minimum_distortion", None)
    again = transfer_matrix(models, x, y, ATTACK, distortions=known)
    np.testing.assert_array_equal(again.errors, fresh.errors)
    with pytest.raises(ValueError, match=r"`distortions\['a'\]` is of inputs of shape \(40, 3\)"):
        transfer_matrix(models, x[:5], y[:5], ATTACK, distortions=known)


def test_table_json_and_picture(data, tmp_path):
    x, y = data
    matrix = transfer_matrix(
        {"one": looks_at(0), "two": looks_at(1)}, x, y, ATTACK, noise_rms=(0.3,)
    )
    table = matrix.table()
    assert "made for" in table and "Gaussian 0.3" in table and "nothing" in table
    assert table.splitlines()[3].split()[:2] == ["one", "100.0"]
    content = json.loads(json.dumps(matrix.to_dict()))
    assert content["errors"] == [[1.0, 0.0], [0.0, 1.0]]
    assert set(content["noise"]) == {"0.3"}
    path = tmp_path / "matrix.png"
    matrix.plot(path)
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_wrong_inputs_are_refused(data):
    x, y = data
    with pytest.raises(TypeError, match="`models` must be a dict name -> model"):
        transfer_matrix([looks_at(0)], x, y, ATTACK)
    with pytest.raises(ValueError, match="`rms` must be > 0"):
        transfer_matrix({"a": looks_at(0)}, x, y, ATTACK, rms=0)
    with pytest.raises(ValueError, match="`noise_rms` must be > 0"):
        transfer_matrix({"a": looks_at(0)}, x, y, ATTACK, noise_rms=(0.1, -1))
    with pytest.raises(TypeError, match="`attack` must seek the smallest"):
        transfer_matrix({"a": looks_at(0)}, x, y, kr.attacks.FGSM(0.1))
