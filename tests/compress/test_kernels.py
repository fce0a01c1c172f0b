import numpy as np
import pytest

import keras_robust as kr
from keras_robust._keras import LEGACY, keras
from keras_robust.compress._kernels import kernels, lost_zeros, rows

pytestmark = pytest.mark.skipif(not LEGACY, reason="compress needs tf_keras")


def model(values):
    layer = keras.layers.Dense(2, name="d")
    built = keras.Sequential([keras.Input((2,)), layer])
    layer.set_weights([np.array(values, "float32"), np.zeros(2)])
    return built


def test_counts_by_hand():
    before = kernels(model([[0.0, 1.0], [1.0, 2.0]]))
    after = kernels(model([[0.0, 0.0], [0.0, 3.0]]))
    assert rows(before, after) == [
        {
            "name": "d",
            "kernel": "kernel",
            "weights": 4,
            "sparsity_before": 0.25,
            "sparsity_after": 0.75,
            "distinct_before": 3,
            "distinct_after": 2,
        }
    ]
    assert lost_zeros(before, after) == []
    assert lost_zeros(after, before) == ["layer 'd': 2 of 3 zeros of its kernel were lost"]


def test_every_kernel_of_a_separable_layer_is_counted():
    layer = keras.layers.SeparableConv2D(3, 2, name="s")
    built = keras.Sequential([keras.Input((4, 4, 2)), layer])
    sizes = {key: kernel.values.size for key, kernel in kernels(built).items()}
    assert sizes == {("s", "depthwise_kernel"): 8, ("s", "pointwise_kernel"): 6}


def test_both_factors_of_a_layer_count():
    layer = kr.layers.LowRankDense(4, 2, name="low")
    found = kernels(keras.Sequential([keras.Input((6,)), layer]))
    assert {key: kernel.values.shape for key, kernel in found.items()} == {
        ("low", "kernel_in"): (6, 2),
        ("low", "kernel_out"): (2, 4),
    }
