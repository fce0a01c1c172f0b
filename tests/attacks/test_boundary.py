"""Steps onto linearised boundaries: as short as scipy's, and never out of the bounds."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks._boundary import nearest_boundary, shortest_step

pytestmark = pytest.mark.once

ORDER = {"linf": np.inf, "l2": 2, "l1": 1}
DUAL = {"linf": 1, "l2": 2, "l1": np.inf}


def smallest_size(normal, rise, low, high, norm):
    """The size of the shortest step, by a general solver."""
    n = len(normal)
    if norm == "l2":
        constraint = {"type": "eq", "fun": lambda v: v @ normal - rise, "jac": lambda v: normal}
        found = scipy.optimize.minimize(
            lambda v: v @ v,
            np.zeros(n),
            jac=lambda v: 2 * v,
            bounds=list(zip(low, high)),
            constraints=constraint,
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        return np.sqrt(found.fun)
    if norm == "linf":  # the last variable bounds the others
        eye, ones = np.eye(n), np.ones((n, 1))
        found = scipy.optimize.linprog(
            np.r_[np.zeros(n), 1],
            A_ub=np.block([[eye, -ones], [-eye, -ones]]),
            b_ub=np.zeros(2 * n),
            A_eq=np.r_[normal, 0][None],
            b_eq=[rise],
            bounds=[*zip(low, high), (0, None)],
        )
    else:  # a way up and a way down for each entry
        found = scipy.optimize.linprog(
            np.ones(2 * n),
            A_eq=np.r_[normal, -normal][None],
            b_eq=[rise],
            bounds=[*((0, b) for b in high), *((0, -b) for b in low)],
        )
    assert found.success
    return found.fun


def a_case(generator, n, bounds, scale):
    """A point with entries at the bounds, and a normal with zeros and equal entries."""
    x = generator.uniform(*bounds, size=n).astype("float32")
    x[: n // 3] = generator.choice(bounds, size=n // 3)
    normal = generator.normal(size=n)
    normal[::3] = np.sign(normal[::3]) * abs(normal[0])
    normal[1::5] = 0.0
    low, high = bounds[0] - np.float64(x), bounds[1] - np.float64(x)
    way = generator.choice([-1.0, 1.0])
    farthest = normal @ np.where(way * normal > 0, high, low)
    return x, (normal * scale).astype("float32"), farthest * scale, low, high


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_no_solver_finds_a_shorter_step(rng, norm):
    for trial in range(12):
        bounds = [(0.0, 1.0), (-2.0, 3.0)][trial % 2]
        scale = 10.0 ** rng.uniform(-8, 6)
        x, normal, farthest, low, high = a_case(rng, int(rng.integers(2, 14)), bounds, scale)
        rise = np.float32(farthest * rng.uniform(0.05, 0.95))
        step = shortest_step(x[None], normal[None], tf.constant([rise]), norm, bounds)[0].numpy()
        unit = np.float64(normal) / scale
        assert unit @ step == pytest.approx(rise / scale, rel=1e-5, abs=1e-6)
        assert np.all(step >= low - 1e-6) and np.all(step <= high + 1e-6)
        best = smallest_size(unit, rise / scale, low, high, norm)
        assert np.linalg.norm(step, ORDER[norm]) == pytest.approx(best, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_boundary_out_of_reach_is_come_as_near_as_possible(rng, norm):
    x, normal, farthest, low, high = a_case(rng, 30, (0.0, 1.0), 1.0)
    rise = tf.constant([1.5 * farthest], tf.float32)
    step = shortest_step(x[None], normal[None], rise, norm, (0.0, 1.0))[0].numpy()
    corner = np.where(normal * farthest > 0, high, low)
    np.testing.assert_allclose(step, np.where(normal == 0, 0.0, corner), atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_without_bounds_in_the_way_the_size_is_that_of_the_dual_norm(rng, norm):
    x = rng.normal(size=(8, 5, 5, 3)).astype("float32")
    normal = rng.normal(size=x.shape).astype("float32")
    rise = rng.normal(size=8).astype("float32")
    step = shortest_step(x, normal, tf.constant(rise), norm, (-1e4, 1e4)).numpy()
    sizes = np.linalg.norm(step.reshape(8, -1), ORDER[norm], axis=1)
    dual = np.linalg.norm(normal.reshape(8, -1), DUAL[norm], axis=1)
    np.testing.assert_allclose(sizes, np.abs(rise) / dual, rtol=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_nothing_to_do_and_nowhere_to_go_is_no_step(norm):
    x = tf.constant([[0.5, 0.5], [1.0, 0.0], [1.0000001, 0.0], [0.5, 0.5]])
    normal = tf.constant([[0.0, 0.0], [1.0, -1.0], [1.0, 0.0], [1.0, 2.0]])
    rise = tf.constant([1.0, 1.0, 1.0, 0.0])
    np.testing.assert_array_equal(shortest_step(x, normal, rise, norm, (0.0, 1.0)), 0.0 * x)


@hypothesis.example(norm="linf", n=1, share=2.7838252038769392e-50, power=15.0, seed=0)
@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    norm=st.sampled_from(["linf", "l2", "l1"]),
    n=st.sampled_from([1, 7, 3072]),
    share=st.floats(-0.99, 0.99),
    power=st.floats(-30, 30),
    seed=st.integers(0, 1000),
)
def test_steps_arrive_in_large_and_badly_scaled_spaces(norm, n, share, power, seed):
    generator = np.random.default_rng(seed)
    x = generator.uniform(size=(2, n)).astype("float32")
    # Weights over eight orders of magnitude: each kink counts.
    normal = generator.normal(size=(2, n)) * 10.0 ** generator.uniform(-8, 0, size=(2, n))
    normal = (normal * 10.0**power).astype("float32")
    room = np.where(share * normal > 0, 1.0 - x, x)
    rise = share * (np.abs(np.float64(normal)) * room).sum(1)
    step = shortest_step(x, normal, tf.constant(rise, tf.float32), norm, (0.0, 1.0)).numpy()
    reached = (np.float64(normal) * step).sum(1)
    # Of what a float32 can tell apart next to the farthest that can be reached; and no entry of a
    # step is smaller than the smallest of them.
    lost = np.finfo("float32").tiny * np.abs(np.float64(normal)).sum(1).max()
    np.testing.assert_allclose(
        reached, rise, rtol=1e-5, atol=1e-6 * np.abs(rise).max() + 1e-37 + lost
    )
    assert (x + step).min() >= -1e-6 and (x + step).max() <= 1 + 1e-6


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_nearest_of_several_boundaries_is_taken(linear, rng, norm):
    model = linear(20, classes=4)
    x = rng.uniform(size=(12, 20)).astype("float32")
    y = np.argmax(model(x), axis=1).astype("int32")
    others = (y[:, None] + np.arange(1, 4)) % 4
    rise, normal = nearest_boundary(model, tf.constant(x), tf.constant(y), others, norm)
    logits = np.float64(model(x))
    for row in range(12):
        gaps = logits[row, y[row]] - logits[row, others[row]]
        normals = np.float64(model.weights[:, others[row]] - model.weights[:, y[row], None])
        nearest = np.argmin(gaps / np.linalg.norm(normals, DUAL[norm], axis=0))
        assert rise[row].numpy() == pytest.approx(gaps[nearest], abs=1e-4)
        np.testing.assert_allclose(normal[row], normals[:, nearest], atol=1e-5)


def test_gradients_and_logits_that_are_not_finite_count_as_none():
    def model(x):
        return tf.stack([tf.sqrt(x[:, 0] - 0.5), tf.math.log(x[:, 1])], axis=1)

    x = tf.constant([[0.5, 0.0], [0.25, 0.5]])
    rise, normal = nearest_boundary(model, x, tf.constant([0, 0]), tf.constant([[1], [1]]), "l2")
    np.testing.assert_array_equal(rise, [0.0, 0.0])
    assert np.all(np.isfinite(normal))
    np.testing.assert_array_equal(normal[:, 0], [0.0, 0.0])


def test_equal_logits_are_just_short_of_the_boundary():
    weights = tf.constant([[1.0, -1.0]])
    x = tf.constant([[0.0], [1.0]])

    def model(x):
        return x @ weights + [1.0, 1.0]

    rise, _ = nearest_boundary(model, x, tf.constant([0, 0]), tf.constant([[1], [1]]), "l2")
    np.testing.assert_allclose(rise, [1e-6, 2.0])
    for attack in (kr.attacks.DeepFool(), kr.attacks.FAB(norm="l2", steps=5)):
        x_adv = dataclasses.replace(attack, bounds=(-1.0, 1.0))(model, x, [0, 0]).numpy()
        assert np.all((-0.01 < x_adv) & (x_adv < 0))
