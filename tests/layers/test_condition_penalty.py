"""The penalty against singular values in float64, its gradient, its bound, and its keeping."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_robust as kr
from keras_robust._keras import LEGACY, keras
from keras_robust.layers import ConditionPenalty
from keras_robust.layers._condition_penalty import spread


def twin(kernel):
    squares = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False) ** 2
    return squares.var() / squares.mean() ** 2


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=4), st.integers(0, 99), st.booleans())
def test_it_is_the_relative_variance_of_the_squared_singular_values(shape, seed, small):
    kernel = np.random.default_rng(seed).normal(size=shape) * (1e-6 if small else 3.0)
    np.testing.assert_allclose(spread(tf.constant(kernel)), twin(kernel), rtol=1e-8, atol=1e-10)
    single = spread(tf.constant(kernel.astype("float32")))
    np.testing.assert_allclose(single, twin(kernel), rtol=1e-3, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 6), st.floats(0.0, 0.15), st.integers(0, 99))
def test_it_bounds_the_condition_number(k, jitter, seed):
    generator = np.random.default_rng(seed)
    values = 1 + jitter * generator.uniform(-1, 1, k)
    left, right = (np.linalg.qr(generator.normal(size=(n, k)))[0] for n in (9, k))
    kernel = 7.0 * (left * values) @ right.T
    r = np.sqrt(float(spread(tf.constant(kernel))) * (k - 1))
    assert r < 1
    bound = np.sqrt((1 + r) / (1 - r))
    assert values.max() / values.min() <= bound * (1 + 1e-6)
    if k == 2:  # Where the bound is the value itself.
        np.testing.assert_allclose(values.max() / values.min(), bound, rtol=1e-5)


def test_orthonormal_kernels_cost_nothing_rank_one_the_most_and_zeros_are_safe():
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 5)))[0]
    assert abs(float(spread(tf.constant(3 * q)))) < 1e-12
    np.testing.assert_allclose(spread(tf.ones([4, 3], tf.float64)), 2.0)
    zeros = tf.Variable(tf.zeros([4, 3]))
    with tf.GradientTape() as tape:
        value = spread(zeros)
    assert float(value) == 0.0 and np.all(np.isfinite(tape.gradient(value, zeros)))


def test_gradient(rng):
    kernel = tf.constant(rng.normal(size=(2, 3, 4)))
    ours, numeric = tf.test.compute_gradient(spread, [kernel], delta=1e-6)
    np.testing.assert_allclose(ours[0], numeric[0], atol=1e-7)


def test_descending_it_in_xla_pulls_the_singular_values_together(rng):
    kernel = tf.Variable(rng.normal(size=(6, 4)).astype("float32"))

    @tf.function(jit_compile=True)
    def step():
        with tf.GradientTape() as tape:
            loss = ConditionPenalty(1.0)(kernel)
        kernel.assign_sub(0.3 * tape.gradient(loss, kernel))

    before = np.linalg.cond(kernel.numpy())
    for _ in range(200):
        step()
    assert before > 2.0 and np.linalg.cond(kernel.numpy()) < 1.05


def test_a_model_keeps_it_in_its_file(tmp_path):
    penalty = ConditionPenalty(0.25)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, kernel_regularizer=penalty)])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.layers[-1].kernel_regularizer.get_config() == {"weight": 0.25}
    np.testing.assert_allclose(again.losses[0], 0.25 * twin(model.layers[-1].kernel.numpy()), 1e-5)


def test_the_bridge_carries_it():
    layer = kr.layers.LowRankDense(3, 2, kernel_regularizer=ConditionPenalty(0.5), name="low")
    model = keras.Sequential([keras.Input((4,)), layer])
    other = (kr.to_keras3 if LEGACY else kr.from_keras3)(model)
    found = other.get_layer("low").kernel_regularizer
    assert found.weight == 0.5 and isinstance(found, found.keras.regularizers.Regularizer)
    assert found.keras is not keras and len(other.losses) == 2


def test_errors():
    with pytest.raises(TypeError, match="`weight` must be a number >= 0, got '1'"):
        ConditionPenalty("1")
    with pytest.raises(ValueError, match="`weight` must be a finite number >= 0, got -1"):
        ConditionPenalty(-1)
    with pytest.raises(ValueError, match="at least two axes.*not as bias_regularizer"):
        ConditionPenalty()(tf.ones([3]))
