"""Seeds: any int, the same numbers everywhere."""

import numpy as np
import pytest
import tensorflow as tf

from keras_robust import _seed

pytestmark = pytest.mark.once


def test_ints_of_any_kind_and_size_are_told_apart():
    seeds = [0, 1, 2**31, 2**31 + 5, 2**32 + 5, 2**40]
    found = [tuple(_seed.as_seed(seed).numpy()) for seed in seeds]
    assert len(set(found)) == len(seeds)
    assert found == [tuple(_seed.as_seed(np.int64(seed)).numpy()) for seed in seeds]


def test_eager_graph_and_xla_draw_the_same():
    def draw(seed):
        one, other = _seed.split(_seed.fold(seed, 3))
        return _seed.uniform([5], one), _seed.normal([5], other)

    seed = _seed.as_seed(7)
    expected = draw(seed)
    for jit in (False, True):
        for a, b in zip(tf.function(draw, jit_compile=jit)(seed), expected):
            np.testing.assert_allclose(a, b, atol=1e-6)
