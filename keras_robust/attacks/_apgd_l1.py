"""One run of APGD for l1: sparse steps, as many entries at once as pay off."""

import dataclasses
import math
import typing

import tensorflow as tf

from keras_robust.attacks._apgd_climb import Point, higher, look, not_done
from keras_robust.attacks._attack import rows_of
from keras_robust.attacks._best import Best, better, choose

# Radii in units of eps, and the share of the steps at each: from outside inwards.
_RADII = (3.0, 2.0, 1.0)
_SHARE = 0.3
# Steps shrink by this factor as long as the sparsity stays, down to a tenth.
_SHRINK = 1.5
_SMALLEST = 0.1
# Steps at a radius that are enough to begin dense and still end sparse.
_LONG = 30
# A point sparser by this factor than at the last checkpoint makes the steps long again.
_SPARSER = 0.95


class _State(typing.NamedTuple):
    """Where a run is after a step.

    Attributes:
        step: steps taken.
        here: the current point.
        top: the point with the highest loss so far.
        best: what the attack returns.
        size: step size as a share of the radius, `(batch,)`.
        entries: nonzero entries of `top` at the last checkpoint, `(batch,)`.
    """

    step: tf.Tensor
    here: Point
    top: Point
    best: Best
    size: tf.Tensor
    entries: tf.Tensor


def climb(goal, ball, x, start, best, steps, early_stop) -> Best:
    """The best of `best` and of the points in the ball, reached from larger balls around it.

    Args:
        goal: `(batch, ...) -> Value`.
        ball: the threat model, l1.
        x: `(batch, ...)` float32.
        start: any perturbation: it is projected on the first, largest ball.
        best: what is known already.
        steps: gradient steps of all radii together.
        early_stop: end when all rows are fooled.
    """
    delta = start
    for radius, count in zip(_RADII, _phases(steps)):
        last = radius == _RADII[-1]
        larger = dataclasses.replace(ball, eps=radius * ball.eps)
        delta = larger.project(delta, x)
        # What fools the model outside the ball counts for nothing.
        delta, found = _climb(goal, larger, x, delta, best, count, early_stop and last)
        best = found if last else best
    return best


def _phases(steps: int) -> list[int]:
    """Steps at each radius; the true one gets what is left, and at least one.

    >>> _phases(100), _phases(1)
    ([30, 30, 40], [0, 0, 1])
    """
    outer = min(math.ceil(_SHARE * steps), (steps - 1) // 2)
    return [outer, outer, steps - 2 * outer]


def _climb(goal, ball, x, start, best, steps, early_stop):
    """The perturbation with the highest loss, and the best of all points and `best`."""
    if not steps:
        return start, best
    value, here = look(goal, x, start)
    state = _State(
        step=tf.constant(0),
        here=here,
        top=here,
        best=better(best, Best(start, value)),
        size=tf.ones_like(value.climb),
        entries=_first_entries(start, steps),
    )
    every = max(int(0.04 * steps), 1)

    def step(*state):
        state = _step(_State(*state), goal, ball, x)
        return tuple(_check(state, tf.equal(state.step % every, 0)))

    state = tf.while_loop(
        lambda *state: not_done(_State(*state).best, early_stop),
        step,
        tuple(state),
        parallel_iterations=1,
        maximum_iterations=steps,
    )
    return _State(*state).top.delta, _State(*state).best


def _step(state: _State, goal, ball, x) -> _State:
    # Two thirds as many entries as the best point has: the next one is to be sparser.
    direction = _sparse_sign(state.here.gradient, state.entries / 1.5)
    moved = state.here.delta + rows_of(state.size, x) * ball.eps * direction
    moved = ball.project(moved, x)
    value, here = look(goal, x, moved)
    return state._replace(
        step=state.step + 1,
        here=here,
        top=higher(here, state.top),
        best=better(state.best, Best(moved, value)),
    )


def _check(state: _State, now) -> _State:
    """At a checkpoint, rows that became sparser go back to the top and take long steps."""
    entries = _entries(state.top.delta)
    sparser = entries < _SPARSER * state.entries
    size = tf.where(sparser, 1.0, tf.maximum(state.size / _SHRINK, _SMALLEST))
    return state._replace(
        here=choose(now & sparser, state.top, state.here),
        size=tf.where(now, size, state.size),
        entries=tf.where(now, entries, state.entries),
    )


def _sparse_sign(gradient, count) -> tf.Tensor:
    """The signs of the `count` largest entries of each row, `(batch,)`, at l1 length 1."""
    entries = math.prod(gradient.shape[1:])
    magnitude = tf.abs(gradient)
    rising = tf.sort(tf.reshape(magnitude, [-1, entries]), axis=-1)
    place = tf.clip_by_value(tf.cast(entries - count, tf.int32), 0, entries - 1)
    least = tf.gather(rising, place, batch_dims=1)
    signs = tf.where(magnitude >= rows_of(least, gradient), tf.sign(gradient), 0.0)
    return tf.math.divide_no_nan(signs, rows_of(_entries(signs), signs))


def _first_entries(start, steps) -> tf.Tensor:
    """How many entries of each row count as nonzero before the first step, `(batch,)`.

    All of them in a long run, so that its first steps move many entries: that finds more. A
    short run would not become sparse again (docs/attacks.md).
    """
    found = _entries(start)
    return tf.ones_like(found) * math.prod(start.shape[1:]) if steps >= _LONG else found


def _entries(delta) -> tf.Tensor:
    """How many entries of each row are not zero, `(batch,)` float32."""
    axes = list(range(1, delta.shape.rank))
    return tf.reduce_sum(tf.cast(delta != 0, tf.float32), axes)
