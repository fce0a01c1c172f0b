"""The search for the weight between loss and distance, row by row, in one loop for all rows."""

import collections.abc
import math
import numbers
import typing

import tensorflow as tf

from keras_robust import losses
from keras_robust.attacks._attack import Goal, Value, call_logits, check_counts, rows_of

_LARGEST_WEIGHT = 1e10

Start = collections.abc.Callable[[tf.Tensor], tuple]


class Step(typing.NamedTuple):
    """What one step of an attack did, row by row.

    Attributes:
        variables: what the attack carries to its next step.
        x_adv: `(rows, ...)`, a candidate.
        loss: `(rows,)`, the objective where the attack stands.
        distance: `(rows,)`, of `x_adv` from `x`: what the search makes small.
        success: `(rows,)` bool, whether `x_adv` is what the attack is after.
    """

    variables: tuple
    x_adv: tf.Tensor
    loss: tf.Tensor
    distance: tf.Tensor
    success: tf.Tensor


class _State(typing.NamedTuple):
    """Where each row stands: its weight and the bracket around it, its run, its best example."""

    weight: tf.Tensor
    low: tf.Tensor
    high: tf.Tensor
    runs: tf.Tensor
    taken: tf.Tensor
    found: tf.Tensor
    loss: tf.Tensor
    loss_before: tf.Tensor
    best: tf.Tensor
    distance: tf.Tensor
    distance_before: tf.Tensor
    variables: tuple


def search_weight(attack, x, given, done, start: Start, step) -> tuple[tf.Tensor, tf.Tensor]:
    """The nearest successful examples over `attack.search_steps` runs of the attack.

    A run that succeeds lowers the weight of the loss, one that does not raises it: by factors
    of 10 until both were seen, then to the geometric mean of the two. Each row goes through
    its runs at its own pace, and rows that are through leave the batch.

    Args:
        attack: settings that passed `check_search`.
        x: `(batch, ...)` float32.
        given: a tuple of `(batch,)` tensors that `step` needs.
        done: `(batch,)` bool, rows that need no search: `x` itself is the example.
        start: `x -> variables`, a tuple of tensors `(rows, ...)`.
        step: `(variables, x, given, weight, taken) -> Step`; `taken`, `(rows,)` float32, counts
            the steps of the run before this one.

    Returns:
        Examples, and `(batch,)` bool: the rows that have one. The others hold `x`.
    """
    rows = tf.shape(x)[:1]
    zero, infinite = tf.zeros(rows), tf.fill(rows, math.inf)
    state = _State(
        weight=tf.fill(rows, attack.initial_const),
        low=zero,
        high=infinite,
        runs=tf.where(done, attack.search_steps, 0),
        taken=zero,
        found=tf.zeros(rows, tf.bool),
        loss=infinite,
        loss_before=infinite,
        best=x,
        distance=tf.where(done, zero, infinite),
        distance_before=infinite,
        variables=start(x),
    )

    def window(state):
        left = tf.where(state.runs < attack.search_steps)
        part, some_x, some_given = tf.nest.map_structure(
            lambda all_: tf.gather_nd(all_, left), (state, x, given)
        )
        part = _take_steps(attack, part, some_x, some_given, step)
        part = _begin_runs(attack, part, start(some_x))
        merged = tf.nest.map_structure(
            lambda all_, new: tf.tensor_scatter_nd_update(all_, left, new), state, part
        )
        return (merged,)

    (state,) = tf.while_loop(
        lambda state: tf.reduce_any(state.runs < attack.search_steps),
        window,
        (state,),
        parallel_iterations=1,
    )
    return state.best, tf.math.is_finite(state.distance)


def _take_steps(attack, state, x, given, step) -> _State:
    """A tenth of a run."""

    def body(state):
        new = step(state.variables, x, given, state.weight, state.taken)
        # The last tenth may reach beyond the end of the run.
        success = new.success & (state.taken < attack.steps)
        nearer = success & (new.distance < state.distance)
        moved = state._replace(
            taken=state.taken + 1.0,
            found=state.found | success,
            loss=tf.where(new.loss < state.loss, new.loss, state.loss),
            best=tf.where(rows_of(nearer, x), new.x_adv, state.best),
            distance=tf.where(nearer, new.distance, state.distance),
            variables=new.variables,
        )
        return (moved,)

    (state,) = tf.while_loop(
        lambda state: True,
        body,
        (state,),
        parallel_iterations=1,
        maximum_iterations=math.ceil(attack.steps / 10),
    )
    return state


def _begin_runs(attack, state, variables) -> _State:
    """Rows whose run is over get their next weight and start again from `variables`."""
    over = state.taken >= attack.steps
    if attack.abort_early:
        stuck = state.loss > 0.9999 * state.loss_before
        over |= stuck & ~(state.distance < 0.999 * state.distance_before)
    low = tf.where(over & ~state.found, state.weight, state.low)
    high = tf.where(over & state.found, state.weight, state.high)
    larger = tf.minimum(state.weight * 10.0, _LARGEST_WEIGHT)
    between = tf.where(low > 0, tf.sqrt(low * high), high / 10.0)
    weight = tf.where(tf.math.is_inf(high), larger, between)
    infinite = tf.fill(tf.shape(weight), math.inf)
    return state._replace(
        weight=tf.where(over, weight, state.weight),
        low=low,
        high=high,
        runs=state.runs + tf.cast(over, tf.int32),
        taken=tf.where(over, 0.0, state.taken),
        found=state.found & ~over,
        loss=tf.where(over, infinite, state.loss),
        loss_before=tf.where(over, infinite, state.loss),
        distance_before=tf.where(over, infinite, state.distance),
        variables=tf.nest.map_structure(
            lambda new, old: tf.where(rows_of(over, old), new, old), variables, state.variables
        ),
    )


def margin_goal(attack, model, y, least) -> Goal:
    """The margin by which `model` misses `y` (reaches it, if targeted): above `least`?"""

    def value(x_adv) -> Value:
        margin = losses.margin(y, call_logits(model, x_adv))
        margin = -margin if attack.targeted else margin
        return Value(margin, margin > least)

    return value


def least_margin(y, logits) -> tf.Tensor:
    """The margin beyond the boundary that rounding cannot undo, `(batch,)`.

    Searches end at the boundary and keep the nearest of many candidates, so the one that
    rounding favours: with no more than 0, other batch sizes put a few of them in their old class.

    Args:
        y: `(batch,)` int32.
        logits: `(batch, classes)`, at the clean inputs.
    """
    far = tf.abs(losses.margin(y, logits))
    return 1e-3 * far + 1e-6 * tf.reduce_max(tf.abs(logits), axis=-1)


def check_search(attack) -> None:
    """Checks the settings that the searches share, and keeps them in plain, hashable numbers.

    Raises:
        TypeError: `targeted` or `abort_early` is not a bool.
        ValueError: a number out of its range.
    """
    check_counts(attack, "steps", "search_steps")
    for name, least in (("learning_rate", "> 0"), ("initial_const", "> 0"), ("confidence", ">= 0")):
        value = getattr(attack, name)
        fits = isinstance(value, numbers.Real) and 0 <= value < math.inf
        if not fits or (least == "> 0" and value == 0):
            raise ValueError(f"`{name}` must be a finite number {least}, got {name}={value!r}.")
        object.__setattr__(attack, name, float(value))
    for name in ("targeted", "abort_early"):
        if not isinstance(getattr(attack, name), bool):
            raise TypeError(
                f"`{name}` must be True or False, got {name}={getattr(attack, name)!r}."
            )
