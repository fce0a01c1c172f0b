"""Box-constrained L-BFGS, the attack that found adversarial examples."""

import dataclasses
import functools
import numbers

import numpy as np
import tensorflow as tf

from keras_robust import losses
from keras_robust.attacks._attack import (
    Attack,
    Value,
    call_logits,
    check_counts,
    hard_labels,
    keep_within,
    settle,
    value_and_gradient,
)
from keras_robust.attacks._boundary import shortest_step
from keras_robust.attacks._scipy_search import begin, finish, proceed
from keras_robust.attacks._targeted import likely_wrong
from keras_robust.attacks._threat import size
from keras_robust.attacks._weight_search import least_margin

# Classes whose boundaries are compared for the nearest one, as many as FAB's.
_NEAREST_OF = 9
# Log odds against the target at the clean input, to which logits are scaled. Below 1 the loss
# is flat, far above it has a kink at the boundary: either way L-BFGS ends early.
_CLEAN_LOG_ODDS = 10.0


@dataclasses.dataclass(frozen=True)
class LBFGS(Attack):
    """The attack of Szegedy et al. 2014, https://arxiv.org/abs/1312.6199, section 4.1.

    scipy's L-BFGS-B minimises `c * |r|^2 + loss(x + r, target)` with `x + r` inside the bounds,
    from `r = 0`, for each input and target by itself; the search goes for the largest c whose
    minimiser still succeeds, since a larger c gives a smaller r. The loss is the cross-entropy
    of the target: against all classes when targeted, else against the label's alone, for which
    the result is the exact distance on linear models. All inputs of a batch ask the model
    together.

    Attributes:
        eps: radius that examples must keep to, in the units of the inputs; None is any.
        norm: "l2".
        targets: for which wrong classes to search: "nearest", the one that is nearest when the
            model is linearised at x, of the 9 most likely; "likely", the most likely; or an
            int, so many of the most likely, the nearest example kept.
        iterations: most iterations of L-BFGS-B for each c.
        search_steps: halvings of the interval for c, on a log scale, after factors of 10.
        targeted: `y` are the labels to reach instead of those to leave.
        bounds: range of valid inputs.

    Raises:
        ValueError: a setting out of its range, or another norm.

    >>> weights = tf.constant([[1.0, -1.0], [-1.0, 1.0]])
    >>> x = tf.constant([[0.6, 0.4]])
    >>> LBFGS()(lambda x: x @ weights, x, [0]).numpy().round(3).tolist()
    [[0.5, 0.5]]
    """

    eps: float | None = None
    norm: str = "l2"
    targets: str | int = "nearest"
    iterations: int = 100
    search_steps: int = 8
    targeted: bool = False
    bounds: tuple[float, float] = (0.0, 1.0)

    searches = True

    def __post_init__(self):
        settle(self, norms=("l2",), optional_eps=True)
        check_counts(self, "iterations", "search_steps")
        if isinstance(self.targets, numbers.Integral):
            check_counts(self, "targets")
        elif self.targets not in ("nearest", "likely"):
            raise ValueError(
                "`targets` must be 'nearest', 'likely' or an int >= 1, got "
                f"targets={self.targets!r}."
            )
        if not isinstance(self.targeted, bool):
            raise TypeError(f"`targeted` must be True or False, got targeted={self.targeted!r}.")

    @property
    def name(self):
        parts = ["L-BFGS"]
        if self.targeted:
            parts += ["targeted"]
        elif self.targets != "nearest":
            parts += [f"targets={self.targets}"]
        return " ".join(parts)

    def run(self, model, x, y, seed, eps):
        y = hard_labels(y)
        logits = call_logits(model, x)
        missed = tf.argmax(logits, axis=1, output_type=tf.int32) != y
        done = ~missed if self.targeted else missed
        targets = self._targets(model, logits, x, y)
        left = tf.where(~done)
        # One search for each row that is left and each of its targets.
        row = tf.repeat(left[:, 0], targets.shape[1])
        target = tf.reshape(tf.gather_nd(targets, left), [-1])
        least = tf.gather(least_margin(y, logits), row)
        given = tf.gather(y, row), target, least
        distance, examples = self._search(model, tf.gather(x, row), *given)
        distance = tf.reshape(distance, [-1, targets.shape[1]])
        best = tf.argmin(distance, axis=1)
        index = tf.range(tf.size(best, tf.int64)) * targets.shape[1] + best
        x_adv = tf.tensor_scatter_nd_update(x, left, tf.gather(examples, index))
        found = tf.math.is_finite(tf.reduce_min(distance, axis=1))
        found = tf.tensor_scatter_nd_update(done, left, found)
        return keep_within(x, x_adv, found, self.norm, eps)

    def _search(self, model, x, y, target, least):
        """Distances, infinite where nothing was found, and examples, for rows with one target.

        The graph asks the model and scipy moves the points, in turns: a model called from
        within scipy would wait for the thread that scipy runs in.
        """

        def ask(jobs, points):
            some = (tf.gather(rows, jobs) for rows in (y, target, least, sharpness))
            value, gradient = value_and_gradient(_goal(self, model, *some), points)
            return proceed_in_numpy(jobs, value.climb, gradient, value.fooled)

        def proceed_in_numpy(*answers):
            asked = tf.numpy_function(proceed, [number, *answers], (tf.int32, tf.float32))
            return tf.ensure_shape(asked[0], [None]), tf.ensure_shape(asked[1], some_points)

        ones = tf.ones_like(target, tf.float32)
        goal = _goal(self, model, y, target, least, ones)
        # Not of an empty batch: oneDNN's fused convolutions give it the wrong shape.
        clean = tf.cond(tf.size(target) > 0, lambda: goal(x).climb, lambda: ones)
        sharpness = _CLEAN_LOG_ODDS / tf.maximum(clean, 1e-6)
        some_points = [None, *x.shape[1:]]
        number = tf.numpy_function(functools.partial(begin, self), [x], tf.int64)
        none = (tf.zeros([0], tf.int32), ones[:0], x[:0], ones[:0] > 0)
        jobs, _ = tf.while_loop(
            lambda jobs, points: tf.size(jobs) > 0,
            ask,
            proceed_in_numpy(*none),
            shape_invariants=(tf.TensorShape([None]), tf.TensorShape(some_points)),
            parallel_iterations=1,
        )
        with tf.control_dependencies([jobs]):
            distance, examples = tf.numpy_function(finish, [number, x], (tf.float64, tf.float32))
        return tf.ensure_shape(distance, [None]), tf.ensure_shape(examples, some_points)

    def _targets(self, model, logits, x, y) -> tf.Tensor:
        """The classes to head for, int32 `(batch, k)`."""
        if self.targeted:
            return y[:, None]
        count = {"nearest": _NEAREST_OF, "likely": 1}.get(self.targets, self.targets)
        others = likely_wrong(logits, y, count)
        if self.targets != "nearest" or others.shape[1] == 1:
            return others

        def nearer(column, nearest, distance):
            other = others[:, column]
            new = _linear_distance(self, model, x, y, other)
            gains = new < distance
            return column + 1, tf.where(gains, other, nearest), tf.where(gains, new, distance)

        first = (1, others[:, 0], _linear_distance(self, model, x, y, others[:, 0]))
        _, nearest, _ = tf.while_loop(
            lambda column, *_: column < others.shape[1], nearer, first, parallel_iterations=1
        )
        return nearest[:, None]


def rms(x, x_adv) -> tf.Tensor:
    """Szegedy's distortion: the root mean square of `x_adv - x` over the values of each input.

    Args:
        x, x_adv: `(batch, ...)`, of one shape.

    Returns:
        `(batch,)` float64, in the units of the inputs.

    >>> rms([[0.0, 0.0]], [[0.3, 0.4]]).numpy().round(4).tolist()
    [0.3536]
    """
    delta = np.asarray(x_adv, np.float64) - np.asarray(x, np.float64)
    return tf.sqrt(tf.reduce_mean(tf.square(tf.reshape(delta, [len(delta), -1])), axis=1))


def _goal(attack, model, y, target, least, sharpness):
    """The log odds against `target`, of scaled logits: to be made small."""

    def value(x_adv) -> Value:
        logits = call_logits(model, x_adv)
        scaled = logits * sharpness[:, None]
        margin = losses.margin(y, logits)
        if attack.targeted:
            return Value(losses.log_odds(target, scaled), -margin > least)
        own = tf.gather(scaled, y, batch_dims=1)
        return Value(own - tf.gather(scaled, target, batch_dims=1), margin > least)

    return value


def _linear_distance(attack, model, x, y, other) -> tf.Tensor:
    """How far the boundary to `other` is inside the bounds, by the model linearised at `x`."""
    ones = tf.ones_like(y, tf.float32)
    value, gradient = value_and_gradient(_goal(attack, model, y, other, ones, ones), x)
    step = shortest_step(x, -gradient, value.climb, attack.norm, attack.bounds)
    gain = -tf.reduce_sum(step * gradient, axis=list(range(1, x.shape.rank)))
    return size(step, attack.norm) + tf.where(gain < 0.999 * value.climb, 1e6, 0.0)
