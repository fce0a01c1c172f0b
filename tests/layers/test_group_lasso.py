"""The group lasso against numpy, its proximal step against the minimum it stands for."""

import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_robust as kr
from keras_robust._keras import LEGACY, keras
from keras_robust.layers import GroupLasso
from keras_robust.layers._group_lasso import GROUPS, group_norms

SHAPE = (3, 3, 4, 5)


def split(kernel, groups):
    """The groups of a kernel as a list of arrays, by the paper's definitions."""
    flat = kernel.reshape(-1, *kernel.shape[-2:])
    return {
        "filters": [flat[..., n] for n in range(kernel.shape[-1])],
        "channels": [flat[:, c, :] for c in range(kernel.shape[-2])],
        "shapes": [row[c] for row in flat for c in range(kernel.shape[-2])],
        "depth": [flat],
    }[groups]


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("shape", [SHAPE, (6, 4)])
@pytest.mark.parametrize("scaled", [False, True])
def test_the_penalty_is_the_sum_of_norms(groups, shape, scaled, rng):
    kernel = rng.normal(size=shape)
    parts = split(kernel, groups)
    norms = [np.linalg.norm(part) * (part.size**0.5 if scaled else 1) for part in parts]
    penalty = GroupLasso(0.3, groups, scaled=scaled)(tf.constant(kernel))
    np.testing.assert_allclose(penalty, 0.3 * sum(norms), rtol=1e-9)
    plain = np.linalg.norm([np.linalg.norm(part) for part in parts])
    np.testing.assert_allclose(np.linalg.norm(group_norms(kernel, groups)), plain, rtol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(GROUPS), st.integers(0, 99), st.floats(0.0, 3.0))
def test_the_proximal_step_minimises_the_penalty_near_the_kernel(groups, seed, rate):
    """prox(v) = argmin |w - v|^2 / 2 + rate * penalty(w): nothing nearby is lower."""
    generator = np.random.default_rng(seed)
    kernel = generator.normal(size=(2, 1, 2, 3))
    lasso = GroupLasso(0.7, groups)

    def cost(w):
        norms = [np.linalg.norm(part) for part in split(w, groups)]
        return np.sum((w - kernel) ** 2) / 2 + rate * 0.7 * sum(norms)

    found = lasso.proximal(tf.constant(kernel), rate).numpy()
    best = cost(found)
    assert best <= cost(kernel) + 1e-12
    for size in (1e-3, 0.1):
        for _ in range(10):
            assert best <= cost(found + size * generator.normal(size=kernel.shape)) + 1e-12


def test_proximal_steps_on_a_quadratic_reach_its_closed_form(rng):
    """min |w - t|^2 / 2 + weight sum ||w_g|| is t (1 - weight / ||t_g||)+, group by group."""
    target = rng.normal(size=(4, 6)) * np.array([0.1, 0.2, 0.5, 1, 2, 4])
    lasso, rate, w = GroupLasso(0.5), 0.3, tf.constant(rng.normal(size=(4, 6)))
    for _ in range(120):
        w = lasso.proximal(w - rate * (w - target), rate)
    norms = np.linalg.norm(target, axis=0)
    want = target * np.maximum(0, 1 - 0.5 / norms)
    np.testing.assert_allclose(w, want, atol=1e-12)
    assert np.array_equal(np.any(w.numpy() != 0, axis=0), norms > 0.5)


def test_the_gradient_is_right_and_zero_at_a_group_of_zeros(rng):
    kernel = rng.normal(size=(2, 2, 3))
    lasso = GroupLasso(0.4, ("filters", "channels"))
    ours, numeric = tf.test.compute_gradient(lasso, [tf.constant(kernel)], delta=1e-6)
    np.testing.assert_allclose(ours[0], numeric[0], atol=1e-7)
    zeros = tf.Variable(tf.zeros([3, 2]))
    with tf.GradientTape() as tape:
        value = lasso(zeros)
    assert np.array_equal(tape.gradient(value, zeros), np.zeros((3, 2)))
    assert np.array_equal(lasso.proximal(zeros, 1.0), np.zeros((3, 2)))


def test_it_is_kept_with_a_model_and_carried_to_the_other_keras(tmp_path):
    lasso = GroupLasso(0.25, ("filters", "shapes"), scaled=True)
    twin = GroupLasso.from_config(json.loads(json.dumps(lasso.get_config())))
    assert (twin.weight, twin.groups, twin.scaled) == (0.25, ("filters", "shapes"), True)
    layer = kr.layers.LowRankDense(3, 2, kernel_regularizer=lasso)
    model = keras.Sequential([keras.Input((4,)), layer])
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(again.losses[0], model.losses[0])
    other = (kr.to_keras3 if LEGACY else kr.from_keras3)(model)
    np.testing.assert_allclose(other.losses[0], model.losses[0])


def test_errors():
    with pytest.raises(TypeError, match="`weight` must be a number"):
        GroupLasso("1")
    with pytest.raises(ValueError, match="`weight` must be a finite number >= 0, got -1"):
        GroupLasso(-1)
    with pytest.raises(ValueError, match="`groups` must be one or several of.*got 'rows'"):
        GroupLasso(1.0, "rows")
    with pytest.raises(ValueError, match="`groups` must be one or several of.*got None"):
        GroupLasso(groups=None)
    with pytest.raises(ValueError, match="got \\(\\)"):
        GroupLasso(1.0, ())
    with pytest.raises(TypeError, match="`scaled` must be True or False"):
        GroupLasso(1.0, scaled=1)
    with pytest.raises(ValueError, match=r"at least two axes, got shape \(3,\)"):
        GroupLasso(1.0)(tf.ones([3]))
    with pytest.raises(ValueError, match=r"at least two axes, got shape \(3,\)"):
        GroupLasso(1.0).proximal(tf.ones([3]), 1.0)
