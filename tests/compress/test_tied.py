"""Kernels of layers that a stage leaves alone keep their zeros and their few values."""

import numpy as np
import pytest

from keras_robust._keras import keras
from keras_robust.compress._masks import value_of
from keras_robust.compress._tied import Tied, keep_kernels


def make(rng, values):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, name="d")])
    kernel = rng.choice(np.float32(values), (6, 5))
    kernel[0, : len(values)] = values
    model.layers[0].kernel.assign(kernel)
    return model, kernel


def test_each_value_becomes_the_mean_of_its_weights(rng):
    model, kernel = make(rng, [-0.5, 0.0, 0.25])
    moved = kernel + rng.normal(size=kernel.shape).astype("float32")
    tied = np.asarray(Tied(model.layers[0].kernel)(moved))
    assert np.all(tied[kernel == 0] == 0)
    for value in (-0.5, 0.25):
        np.testing.assert_allclose(tied[kernel == value], moved[kernel == value].mean(), rtol=1e-5)
        assert np.unique(tied[kernel == value]).size == 1


@pytest.mark.parametrize("jit", [False, True])
def test_kept_by_any_optimizer(rng, jit):
    model, kernel = make(rng, [-0.5, 0.0, 0.25])
    keep_kernels(model.layers, sparse=True, clusters=3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(0.1, weight_decay=0.1)
    model.compile(optimizer, loss, jit_compile=jit)
    x = rng.uniform(size=(16, 6)).astype("float32")
    model.fit(x, np.arange(16) % 5, epochs=2, verbose=0)
    after = value_of(model.layers[0].kernel)
    assert np.all((after == 0) == (kernel == 0)) and np.unique(after).size == 3
    assert np.abs(after - kernel).max() > 0.05


def test_zeros_alone_where_there_are_many_values(rng):
    model, kernel = make(rng, [-0.5, 0.0, 0.25, 0.5])
    layer = model.layers[0]
    keep_kernels(model.layers, sparse=True, clusters=3)
    kept = np.asarray(layer.kernel.constraint(kernel + 1.0))
    assert np.all(kept[kernel == 0] == 0) and np.all(kept[kernel != 0] == kernel[kernel != 0] + 1)
    other, _ = make(rng, [-0.5, 0.25])
    keep_kernels(other.layers, sparse=True)
    keep_kernels(other.layers, sparse=False, clusters=1)
    assert other.layers[0].kernel.constraint is None
