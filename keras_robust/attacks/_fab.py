"""The fast adaptive boundary attack: the smallest perturbation, in all three norms."""

import dataclasses
import typing

import tensorflow as tf

from keras_robust._seed import fold
from keras_robust.attacks._attack import (
    Attack,
    call_logits,
    check_counts,
    hard_labels,
    keep_within,
    rows_of,
    settle,
)
from keras_robust.attacks._best import choose
from keras_robust.attacks._boundary import into_bounds, nearest_boundary, shortest_step
from keras_robust.attacks._targeted import likely_wrong
from keras_robust.attacks._threat import Ball, check_finite, size
from keras_robust.losses import margin

# Radius of the random starts when neither `eps` nor an earlier run gives one, as a share of
# the range between the bounds: that of the reference implementation.
_RADIUS = {"linf": 0.3, "l2": 1.0, "l1": 5.0}
_SEARCH_STEPS = 3


@dataclasses.dataclass(frozen=True)
class FAB(Attack):
    """FAB: walks along the decision boundary to the point of it that is nearest to `x`.

    Croce and Hein 2020, https://arxiv.org/abs/1907.02044. Each step projects the current point
    and `x` itself on the linearised boundary cut with the bounds, goes a little beyond it
    between the two, and steps back towards `x` once the model is fooled.

    Attributes:
        eps: None for the smallest perturbation that is found. With a radius, only examples
            inside it are returned, and a row rests once it has one.
        norm: "linf", "l2" or "l1".
        steps: steps of each run.
        restarts: runs for each target; the first starts at `x`, the others at random points.
        targets: None linearises the boundaries to all classes in each step, a backward pass
            each. `k` takes the boundaries to the k most likely wrong classes in turn, one
            backward pass a step: FAB-T, for many classes.
        alpha_max: how much of a step may go to the projection of `x`, in [0, 1].
        eta: how far beyond the boundary a step goes; 1 is onto it.
        beta: share of the way from `x` that is left after a step back, in (0, 1).
        bounds: range of valid inputs.

    Raises:
        ValueError: a setting out of its range.

    >>> weights = tf.constant([[1.0, -1.0], [-2.0, 2.0]])
    >>> x = tf.constant([[0.8, 0.1]])
    >>> FAB(steps=10)(lambda x: x @ weights, x, [0]).numpy().round(2)
    array([[0.6, 0.3]], dtype=float32)
    """

    eps: float | None = None
    norm: str = "linf"
    steps: int = 100
    restarts: int = 1
    targets: int | None = None
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    bounds: tuple[float, float] = (0.0, 1.0)

    searches = True

    def __post_init__(self):
        settle(self, optional_eps=True)
        check_counts(self, "steps", "restarts")
        if self.targets is not None:
            check_counts(self, "targets")
        if not 0 <= self.alpha_max <= 1:
            raise ValueError(f"`alpha_max` must be in [0, 1], got alpha_max={self.alpha_max!r}.")
        if not 1 <= self.eta < 2:
            raise ValueError(f"`eta` must be in [1, 2), got eta={self.eta!r}.")
        if not 0 < self.beta < 1:
            raise ValueError(f"`beta` must be in (0, 1), got beta={self.beta!r}.")
        if self.norm == "l1":  # whose steps go all the way to a bound
            check_finite(self)

    @property
    def name(self):
        parts = ["FAB" if self.targets is None else "FAB-T"]
        parts += [f"x{self.restarts}"] if self.restarts > 1 else []
        return " ".join(parts + ([self.norm] if self.norm != "linf" else []))

    def run(self, model, x, y, seed, eps):
        y = hard_labels(y)
        logits = call_logits(model, x)
        missed = tf.argmax(logits, axis=1, output_type=tf.int32) != y
        others = self._others(logits, y)
        # Nothing is gained below this distance; a hair inside, since it is a float32 sum.
        enough = 0.0 if self.eps is None else eps * (1.0 - 1e-6)

        def standing(_, best):
            return tf.reduce_any(best.distance > enough) & (eps > 0)

        def attack_standing(number, best):
            rows = tf.where(best.distance > enough)
            start = tf.nest.map_structure(lambda all_rows: tf.gather_nd(all_rows, rows), best)
            ours, labels = tf.gather_nd(x, rows), tf.gather_nd(y, rows)
            columns = others
            if self.targets is not None:
                columns = tf.gather(others, number // self.restarts, axis=1)[:, None]
            boundaries = labels, tf.gather_nd(columns, rows)
            first = self._start(number, ours, start, fold(seed, number), eps)
            found = self._walk(model, ours, boundaries, first, start, enough)
            return number + 1, tf.nest.map_structure(
                lambda all_rows, some: tf.tensor_scatter_nd_update(all_rows, rows, some),
                best,
                found,
            )

        runs = self.restarts * (1 if self.targets is None else others.shape[1])
        start = _Best(x, tf.where(missed, 0.0, float("inf")))
        _, best = tf.while_loop(
            standing,
            attack_standing,
            (0, start),
            parallel_iterations=1,
            maximum_iterations=runs,
        )
        return keep_within(x, best.x_adv, best.distance < float("inf"), self.norm, eps)

    def _others(self, logits, y) -> tf.Tensor:
        """`(batch, k)`: all wrong classes, or the most likely ones in the order of a try."""
        if self.targets is not None:
            return likely_wrong(logits, y, self.targets)
        classes = logits.shape[1]
        return (y[:, None] + 1 + tf.range(classes - 1)) % classes

    def _start(self, number, x, best, seed, eps) -> tf.Tensor:
        """Where a run starts: `x`, or, after the first, half the best distance away at most."""
        if self.restarts == 1:
            return x
        radius = _RADIUS[self.norm] * (self.bounds[1] - self.bounds[0])
        radius = tf.minimum(best.distance, radius if self.eps is None else eps)
        ball = Ball(self.norm, rows_of(radius / 2, x), self.bounds)
        first = number % self.restarts == 0
        return tf.where(first, x, into_bounds(x + ball.random(x, seed), x, self.bounds))

    def _walk(self, model, x, boundaries, point, best, enough) -> "_Best":
        """`steps` steps from `point`, then a search between `x` and the best that they found."""
        y, others = boundaries

        def any_left(_, best):
            return tf.reduce_any(best.distance > enough)

        def step(point, best):
            rise, normal = nearest_boundary(model, point, y, others, self.norm)
            moved = into_bounds(self._step(x, point, rise, normal), x, self.bounds)
            best, fooled = _keep_nearest(model, y, x, moved, best, self.norm)
            back = x + self.beta * (moved - x)
            return tf.where(rows_of(fooled, x), into_bounds(back, x, self.bounds), moved), best

        _, best = tf.while_loop(
            any_left,
            step,
            (point, best),
            parallel_iterations=1,
            maximum_iterations=self.steps,
        )
        return self._search(model, x, y, best)

    def _step(self, x, point, rise, normal) -> tf.Tensor:
        """Towards the boundary: from `point`, drawn to where it is nearest to `x`."""
        axes = list(range(1, x.shape.rank))
        rise_from_x = rise + tf.reduce_sum(normal * (point - x), axes)
        step = shortest_step(point, normal, rise, self.norm, self.bounds)
        step_from_x = shortest_step(x, normal, rise_from_x, self.norm, self.bounds)
        near = tf.maximum(size(step, self.norm), 1e-8)
        far = tf.maximum(size(step_from_x, self.norm), 1e-8)
        alpha = rows_of(tf.minimum(near / (near + far), self.alpha_max), x)
        return (point + self.eta * step) * (1 - alpha) + (x + self.eta * step_from_x) * alpha

    def _search(self, model, x, y, best) -> "_Best":
        """Secant steps on the line from `x` to the best point, to where the margin is zero."""
        found = (best.distance < float("inf")) & (best.distance > 0)
        x_adv = best.x_adv

        def look(share):
            point = into_bounds(x + rows_of(share, x) * (x_adv - x), x, self.bounds)
            logits = call_logits(model, point)
            return point, margin(y, logits), tf.reduce_max(tf.abs(logits), axis=1)

        def step(right, wrong, best):
            cut = tf.math.divide_no_nan(right.margin, right.margin - wrong.margin)
            # A little beyond the cut, since a point just short of it brings nothing.
            cut = tf.clip_by_value(cut + 0.05 * (1.0 - cut), 0.05, 0.95)
            cut = tf.where(tf.math.is_finite(cut), cut, 0.5)
            share = right.share + (wrong.share - right.share) * cut
            point, middle, height = look(share)
            # Clearly fooled: another batch size rounds the logits in another way.
            fooled = found & (middle > 1e-5 * height)
            best = _nearer(best, _Best(point, size(point - x, self.norm)), fooled)
            between = _End(share, middle)
            return choose(fooled, right, between), choose(fooled, between, wrong), best

        here, there = tf.zeros_like(best.distance), tf.ones_like(best.distance)
        ends = _End(here, look(here)[1]), _End(there, look(there)[1])
        return tf.while_loop(
            lambda *_: True,
            step,
            (*ends, best),
            parallel_iterations=1,
            maximum_iterations=_SEARCH_STEPS,
        )[2]


class _End(typing.NamedTuple):
    """An end of a line search: the share of the way to the example, and the margin there."""

    share: tf.Tensor
    margin: tf.Tensor


class _Best(typing.NamedTuple):
    """The nearest example found for each row, and its distance, infinite without one."""

    x_adv: tf.Tensor
    distance: tf.Tensor


def _keep_nearest(model, y, x, point, best, norm) -> tuple[_Best, tf.Tensor]:
    """`best`, or `point` where it fools the model and is nearer; and where it fools."""
    predicted = tf.argmax(call_logits(model, point), axis=1, output_type=tf.int32)
    fooled = predicted != y
    return _nearer(best, _Best(point, size(point - x, norm)), fooled), fooled


def _nearer(old: _Best, new: _Best, fooled) -> _Best:
    return choose(fooled & (new.distance < old.distance), new, old)
