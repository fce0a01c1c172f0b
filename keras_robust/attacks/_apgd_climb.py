"""One run of APGD for linf and l2: momentum, and steps that halve when progress stops."""

import typing

import tensorflow as tf

from keras_robust.attacks._attack import rows_of, value_and_gradient
from keras_robust.attacks._best import Best, better, choose

_MOMENTUM = 0.75


class Point(typing.NamedTuple):
    """A perturbation `(batch, ...)` with the goal's gradient and value there."""

    delta: tf.Tensor
    gradient: tf.Tensor
    climb: tf.Tensor


class _State(typing.NamedTuple):
    """Where a run is after a step.

    Attributes:
        step: steps taken.
        here: the current point.
        previous: the perturbation before it.
        top: the point with the highest loss so far.
        best: what the attack returns.
        size: step size as a share of eps, `(batch,)`.
        rises: steps since the last checkpoint that raised the loss, `(batch,)`.
        old_top: the highest loss at the last checkpoint, `(batch,)`.
        halved: whether the step was halved there, `(batch,)`.
    """

    step: tf.Tensor
    here: Point
    previous: tf.Tensor
    top: Point
    best: Best
    size: tf.Tensor
    rises: tf.Tensor
    old_top: tf.Tensor
    halved: tf.Tensor


def climb(goal, ball, x, start, best, steps, rho, early_stop) -> Best:
    """The best of `best` and of all points on the way from `start`.

    Args:
        goal: `(batch, ...) -> Value`.
        ball: the threat model.
        x: `(batch, ...)` float32.
        start: perturbation in the ball.
        best: what is known already.
        steps: gradient steps.
        rho: share of steps between two checkpoints that must raise the loss.
        early_stop: end when all rows are fooled.
    """
    value, here = look(goal, x, start)
    windows = tf.constant(_windows(steps))
    state = _State(
        step=tf.constant(0),
        here=here,
        previous=start,
        top=here,
        best=better(best, Best(start, value)),
        size=tf.fill(tf.shape(x)[:1], 2.0),
        rises=tf.zeros_like(value.climb),
        old_top=value.climb,
        halved=tf.ones_like(value.fooled),
    )

    def step(*state):
        state = _step(_State(*state), goal, ball, x)
        return tuple(_check(state, tf.gather(windows, state.step - 1), rho))

    state = tf.while_loop(
        lambda *state: not_done(_State(*state).best, early_stop),
        step,
        tuple(state),
        parallel_iterations=1,
        maximum_iterations=steps,
    )
    return _State(*state).best


def _step(state: _State, goal, ball, x) -> _State:
    delta = state.here.delta
    moved = ball.ascend(delta, state.here.gradient, x, rows_of(state.size, x) * ball.eps)
    # The first step has no way behind it to go on with.
    share = tf.where(tf.equal(state.step, 0), 1.0, _MOMENTUM)
    moved = delta + share * (moved - delta) + (1.0 - share) * (delta - state.previous)
    moved = ball.project(moved, x)
    value, here = look(goal, x, moved)
    return state._replace(
        step=state.step + 1,
        here=here,
        previous=delta,
        top=higher(here, state.top),
        best=better(state.best, Best(moved, value)),
        rises=state.rises + tf.cast(here.climb > state.here.climb, tf.float32),
    )


def _check(state: _State, window, rho) -> _State:
    """At a checkpoint, `window` steps after the last one, rows that stagnate go back to the top.

    They do so when less than a share `rho` of the steps raised the loss, or when the highest loss
    has not changed since a checkpoint that did not halve the step. `window` is 0 elsewhere.
    """
    now = window > 0
    few = state.rises <= rho * tf.cast(window, tf.float32)
    stuck = ~state.halved & (state.old_top >= state.top.climb)
    halve = now & (few | stuck)
    # The loss stays that of the last step, with which the next one is compared.
    back = choose(halve, state.top, state.here)._replace(climb=state.here.climb)
    return state._replace(
        here=back,
        size=tf.where(halve, state.size / 2, state.size),
        rises=tf.where(now, 0.0, state.rises),
        old_top=tf.where(now, state.top.climb, state.old_top),
        halved=tf.where(now, halve, state.halved),
    )


def _windows(steps: int) -> list[int]:
    """For each step the length of the window that ends with it, 0 where none does.

    >>> [i + 1 for i, window in enumerate(_windows(100)) if window]
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    window, shrink, least = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    windows, last = [0] * steps, 0
    while last + window <= steps:
        last += window
        windows[last - 1] = window
        window = max(window - shrink, least)
    return windows


def look(goal, x, delta):
    """The goal's `Value` and the `Point` at `delta`."""
    value, gradient = value_and_gradient(goal, x + delta)
    return value, Point(delta, gradient, value.climb)


def higher(new: Point, old: Point) -> Point:
    """Row by row the point with the higher loss."""
    return choose(new.climb > old.climb, new, old)


def not_done(best: Best, early_stop) -> tf.Tensor:
    """Whether a run goes on: always, or while a row of `best` fools nobody."""
    return tf.reduce_any(~best.value.fooled) if early_stop else tf.constant(True)
