"""Condition numbers against numpy's, of kernels and of products."""

import json
import math

import numpy as np
import pytest

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.analysis import condition_numbers

layers = keras.layers


def matrix(layer):
    kernel = np.asarray(layer.kernel, "float64")
    return kernel.reshape(-1, kernel.shape[-1])


@pytest.fixture(scope="module")
def model():
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(4, name="inside")], name="inner")
    inputs = keras.Input((5, 5, 2))
    x = layers.Conv2D(6, 3, name="conv")(inputs)
    x = layers.SeparableConv2D(6, 2)(layers.Conv2D(6, 1, groups=2, name="grouped")(x))
    x = inner(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(9, activation="relu", name="wide")(x))


def test_they_are_those_of_numpy(model):
    found = condition_numbers(model)
    assert [row["layer"] for row in found.rows] == ["conv", "inside", "wide"]
    kernels = [
        model.get_layer("conv"),
        model.get_layer("inner").get_layer("inside"),
        model.get_layer("wide"),
    ]
    for row, layer in zip(found.rows, kernels, strict=True):
        values = np.linalg.svd(matrix(layer), compute_uv=False)
        assert row["shape"] == list(matrix(layer).shape) and row["rank"] == min(row["shape"])
        np.testing.assert_allclose([row["largest"], row["smallest"]], values[[0, -1]])
        np.testing.assert_allclose(row["condition"], np.linalg.cond(matrix(layer)), rtol=1e-6)
        np.testing.assert_allclose(row["stable_rank"], (values**2).sum() / values[0] ** 2)
        assert found[layer.name] == row["condition"]
    assert found.worst == max(np.linalg.cond(matrix(layer)) for layer in kernels)


@pytest.mark.parametrize("stage", [{"rank": 2}, {"rank": {"conv": 3}}])
def test_a_factorized_layer_counts_as_its_product(model, stage):
    found = condition_numbers(kr.compress.Factorize(**stage).apply(model))
    for name in ("conv", "wide") if stage["rank"] == 2 else ("conv",):
        values = np.linalg.svd(matrix(model.get_layer(name)), compute_uv=False)
        rank = 2 if stage["rank"] == 2 else 3
        (row,) = [row for row in found.rows if row["layer"] == name]
        np.testing.assert_allclose(row["condition"], values[0] / values[rank - 1], rtol=1e-4)
        assert row["rank"] == rank and row["layers"] == [f"{name}_rank", name]
        assert row["kind"].endswith(f"of rank {rank}")


def test_low_rank_layers_count_as_their_product():
    low = [kr.layers.LowRankConv2D(6, 3, 2, name="a"), layers.Flatten()]
    model = keras.Sequential([keras.Input((4, 4, 2)), *low, kr.layers.LowRankDense(5, 3, name="b")])
    found = condition_numbers(model)
    np.testing.assert_allclose([found["a"], found["b"]], 1.0, rtol=1e-4)
    assert [row["rank"] for row in found.rows] == [2, 3]


def test_layers_with_something_between_are_no_product():
    inputs = keras.Input((4,))
    x = layers.Dense(4, use_bias=False, name="two_users")(inputs)
    x = layers.Add()([layers.Dense(4, name="one")(x), layers.Dense(4, name="other")(x)])
    x = layers.Dense(4, "relu", use_bias=False, name="active")(x)
    x = layers.Dense(4, name="biased")(x)
    model = keras.Model(inputs, layers.Dense(4, name="last")(x))
    assert [len(row["layers"]) for row in condition_numbers(model).rows] == [1] * 6


def test_a_chain_of_linear_layers_counts_as_one_product():
    chain = [layers.Dense(4, use_bias=name == "c", name=name) for name in "abc"]
    model = keras.Sequential([keras.Input((4,)), *chain])
    kernels = [np.diag([1.0, 1, 1, 0]), *np.random.default_rng(0).normal(size=(2, 4, 4))]
    model.set_weights([*kernels, np.zeros(4)])
    found = condition_numbers(model)
    assert [row["layers"] for row in found.rows] == [["a", "b", "c"]]
    assert found.worst == found["c"] == np.inf


def test_layers_that_are_called_twice_count_alone():
    one, other = (layers.Dense(3, use_bias=False, name=name) for name in "ab")
    inputs = keras.Input((3,))
    found = condition_numbers(keras.Model(inputs, one(other(one(inputs)))))
    assert [row["layers"] for row in found.rows] == [["a"], ["b"]]


def test_a_kernel_without_full_rank_is_infinite(tmp_path):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="d")])
    model.get_layer("d").kernel.assign(np.ones((3, 2)))
    found = condition_numbers(model)
    assert found["d"] == math.inf and round(found.rows[0]["stable_rank"], 6) == 1.0
    assert json.loads(json.dumps(found.to_dict()))["rows"][0]["condition"] is None
    head, line = str(found).splitlines()
    assert head.split()[:4] == ["layer", "kind", "matrix", "rank"]
    assert line.split()[:6] == ["d", "Dense", "3", "x", "2", "2"] and "inf" in line


def test_errors(model):
    with pytest.raises(KeyError, match="No kernel of 'grouped'; there are"):
        condition_numbers(model)["grouped"]
    with pytest.raises(TypeError, match="`model` must be a Keras model, got function"):
        condition_numbers(lambda x: x)
    with pytest.raises(ValueError, match="has no Dense or Conv2D kernel"):
        condition_numbers(keras.Sequential([keras.Input((3,)), layers.ReLU()]))
    with pytest.raises(ValueError, match="has no graph of layers"):
        condition_numbers(keras.Sequential([layers.Dense(3)]))
