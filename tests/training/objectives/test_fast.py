"""Fast: one step in closed form, and gradient alignment."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._seed import fold
from keras_robust.attacks._threat import size
from keras_robust.training.objectives import Fast


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_is_one_long_step_of_pgd_in_the_attacks_ball(net, batch, step_for, norm):
    x, _, y, _ = batch
    x = 0.25 + 0.5 * x  # The bounds cut nothing here.
    step = step_for(net, kr.attacks.PGD(0.1, norm=norm, steps=7), seed=3)
    found = Fast().perturb(step, tf.constant(x), tf.constant(y, tf.int32))
    one = kr.attacks.PGD(0.1, norm=norm, steps=1, step_size=0.125, keep_best=False)
    np.testing.assert_allclose(found, one(net, x, y, seed=3), atol=1e-6)


def test_without_random_start_is_fgsm(net, batch, step_for):
    x, _, y, _ = batch
    fast = Fast(alpha=1.0, random_start=False)
    found = fast.perturb(step_for(net), tf.constant(x), tf.constant(y, tf.int32))
    np.testing.assert_allclose(found, kr.attacks.FGSM(0.1)(net, x, y), atol=1e-6)


def test_short_step_from_a_random_start_in_numpy(linear_net, step_for, rng):
    """The sign of a linear model's gradient is that of a difference of its weights."""
    x = rng.uniform(0.2, 0.8, size=(4, 5)).astype("float32")
    step = step_for(linear_net, seed=9)
    found = Fast(alpha=0.5).perturb(step, tf.constant(x), tf.constant([0, 1, 0, 1]))
    start = step.ball.random(tf.constant(x), fold(tf.constant([9, 0]), 0)).numpy()
    way = np.sign(linear_net.w.numpy() @ [-1, 1]) * np.array([[1], [-1], [1], [-1]])
    np.testing.assert_allclose(found, x + np.clip(start + 0.05 * way, -0.1, 0.1), atol=1e-6)


def test_start_and_step_know_no_bounds_but_the_examples_do(linear_net, step_for):
    """On black: from the start cut to [0, 0.1] a step of 0.125 would always end at a corner."""
    x = np.zeros((50, 5), "float32")
    step = step_for(linear_net, seed=9)

    found = Fast().perturb(step, tf.constant(x), tf.zeros(50, tf.int32)).numpy()

    start = step.unbounded_ball.random(tf.constant(x), fold(tf.constant([9, 0]), 0)).numpy()
    way = np.sign(linear_net.w.numpy() @ [-1, 1])
    expected = np.clip(np.clip(start + 0.125 * way, -0.1, 0.1), 0, 1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    inside = (found > 1e-3) & (found < 0.1 - 1e-3)
    assert start.min() < -0.05 and 0.2 < inside[:, way > 0].mean() < 0.5


@pytest.mark.parametrize("objective", [Fast(), kr.objectives.Free()])
@pytest.mark.parametrize(("norm", "eps"), [("l1", 2.0), ("l2", 0.5), ("linf", 0.1)])
def test_the_radius_is_used_in_every_norm(linear_net, step_for, objective, norm, eps):
    """An entry holds 1 at most, so that an l1 radius of 2 takes several."""
    x, y = np.full((30, 5), 0.5, "float32"), tf.constant([0, 1] * 15)
    step = step_for(linear_net, kr.attacks.PGD(eps, norm=norm), seed=9)
    if objective.carries:
        with tf.GradientTape() as tape:
            moved = tf.constant(x)
            tape.watch(moved)
            loss = tf.reduce_mean(kr.losses.cross_entropy(y, linear_net(moved)))
        gradient = tape.gradient(loss, moved)
        step = dataclasses.replace(step, carried=tf.zeros_like(x))
        step = dataclasses.replace(step, carried=objective.carry(step, tf.constant(x), gradient))

    found = objective.perturb(step, tf.constant(x), y)

    assert tf.reduce_mean(size(found - x, norm)) > 0.7 * eps


def test_gradient_alignment_in_numpy(net, batch, step_for):
    x, x_adv, y, weight = batch
    step = step_for(net, seed=2)
    with_it = Fast(grad_align=0.5).minimise(step, tf.constant(x), x_adv, y, weight).loss
    without = Fast().minimise(step, tf.constant(x), x_adv, y, weight).loss
    start = x + step.ball.random(tf.constant(x), fold(step.seed, 1)).numpy()

    def gradients(points):
        points = tf.constant(points, tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(points)
            values = kr.losses.cross_entropy(y, net(points))
        return tape.gradient(values, points).numpy()

    here, there = gradients(x), gradients(start)
    lengths = np.linalg.norm(here, axis=1) * np.linalg.norm(there, axis=1)
    expected = 0.5 * np.mean(weight * (1 - np.sum(here * there, axis=1) / lengths))
    np.testing.assert_allclose(with_it - without, expected, rtol=1e-4)


def test_without_alignment_minimises_the_weighted_mean(net, batch, step_for, check_gradient):
    x, x_adv, y, weight = batch
    step = step_for(net)

    def loss():
        return Fast().minimise(step, x, x_adv, y, weight).loss

    np.testing.assert_allclose(loss(), np.mean(weight * net.cross_entropy(x_adv, y)), rtol=1e-10)
    check_gradient(net.trainable_variables, loss)


def test_gradient_alignment_differentiates(net, batch, step_for, check_gradient):
    """Differences of it in float64; its own input gradients are float32, as attacks are."""
    x, _, y, weight = batch
    step, objective = step_for(net, kr.attacks.PGD(0.5), seed=2), Fast(grad_align=1.0)
    start = x + step.ball.random(tf.constant(x), fold(step.seed, 1)).numpy()

    def value():
        here, there = (net.slopes(z.astype("float64"), y, weight)[-1] for z in (x, start))
        lengths = np.linalg.norm(here, axis=1) * np.linalg.norm(there, axis=1)
        return np.mean(weight * (1 - np.sum(here * there, axis=1) / lengths))

    def alignment():
        with_it = objective.minimise(step, tf.constant(x), x, y, weight).loss
        return with_it - Fast().minimise(step, tf.constant(x), x, y, weight).loss

    check_gradient(net.trainable_variables, alignment, value, tolerance=1e-5)


@pytest.mark.parametrize("name", ["alpha", "grad_align"])
def test_negative_settings_are_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` must be a finite number >= 0, got {name}=-1"):
        Fast(**{name: -1})


def test_no_step_is_refused():
    with pytest.raises(ValueError, match="`alpha` must be > 0 in units of eps"):
        Fast(alpha=0)
