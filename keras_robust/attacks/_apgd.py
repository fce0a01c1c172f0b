"""APGD: projected gradient ascent that needs no step size."""

import collections.abc
import dataclasses

import tensorflow as tf

from keras_robust._seed import fold, normal, uniform
from keras_robust.attacks import _apgd_climb, _apgd_l1
from keras_robust.attacks._attack import (
    LOSSES,
    Ascent,
    call_logits,
    check_counts,
    check_loss,
    hard_labels,
    make_goal,
    rows_of,
    settle,
)
from keras_robust.attacks._best import Best, unseen
from keras_robust.attacks._targeted import likely_wrong, targeted_loss
from keras_robust.attacks._threat import Ball, size


@dataclasses.dataclass(frozen=True)
class APGD(Ascent):
    """Auto-PGD, Croce and Hein 2020, https://arxiv.org/abs/2003.01690, algorithm 1.

    Steps start at 2 eps and are halved when the loss stops to rise, from the best point on. For
    l1 the sparse steps of Croce and Hein 2021, https://arxiv.org/abs/2103.01208, and its path
    through balls of three, two and one eps, as in AutoAttack.

    Returns for each row the point with the highest loss among those that fool the model, or
    among all where none does; `x` counts as one, but not in `perturb`, which training takes.

    Attributes:
        eps: radius in the units of the inputs.
        norm: "linf", "l2" or "l1".
        loss: "ce", "dlr", "margin", or a function `(labels, logits) -> (batch,)` to climb. None
            is "dlr" with `targets` and "ce" without. The targeted "dlr" needs 4 classes.
        steps: gradient steps of each run.
        restarts: runs with other random starts.
        targets: None, or an int k: as many restarts towards each of the k most likely wrong
            classes in turn (all of them when there are fewer), with the targeted form of `loss`.
        eot: calls of a randomised model that each gradient is the mean of.
        rho: share of the steps between two checkpoints that must raise the loss for the step to
            stay; linf and l2.
        targeted: `y` are the labels to reach instead of those to leave.
        early_stop: end a run when all its rows fool the model. With `eot` above 1 a run never
            ends early: a point that fools most calls may yet fool more.
        bounds: range of valid inputs.

    Later restarts and targets see only the rows still standing. Without those and with static
    shapes XLA can compile it.

    Raises:
        ValueError: a setting out of its range, or `targets` and `targeted` together.

    >>> weights = tf.constant([[1.0, -1.0], [-2.0, 2.0]])
    >>> x = tf.constant([[0.5, 0.5]])
    >>> attack = APGD(eps=0.25, steps=5, early_stop=False)
    >>> attack(lambda x: x @ weights, x, [0]).numpy().round(3)
    array([[0.25, 0.75]], dtype=float32)
    """

    eps: float
    norm: str = "linf"
    loss: str | collections.abc.Callable | None = None
    steps: int = 100
    restarts: int = 1
    targets: int | None = None
    eot: int = 1
    rho: float = 0.75
    targeted: bool = False
    early_stop: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self):
        settle(self)
        if self.loss is None:
            object.__setattr__(self, "loss", "ce" if self.targets is None else "dlr")
        check_loss(self.loss, self.targeted)
        check_counts(self, "steps", "restarts", "eot")
        if self.targets is not None:
            check_counts(self, "targets")
        if self.targets is not None and self.targeted:
            raise ValueError(
                f"targets={self.targets} chooses the classes to reach, and targeted=True says that "
                "`y` are these. Give one of them."
            )
        if not 0 < self.rho < 1:
            raise ValueError(f"`rho` must be in (0, 1), got rho={self.rho!r}.")

    @property
    def name(self):
        loss = self.loss.upper() if isinstance(self.loss, str) else "own"
        parts = ["APGD-T" if self.targets else f"APGD-{loss}"]
        parts += [f"x{self.restarts}"] if self.restarts > 1 else []
        parts += [self.norm] if self.norm != "linf" else []
        parts += [f"{self.steps} steps"] if self.steps != 100 else []
        parts += [loss] if self.targets and self.loss != "dlr" else []
        parts += [f"eot {self.eot}"] if self.eot > 1 else []
        return " ".join(parts + (["targeted"] if self.targeted else []))

    def for_training(self):
        return dataclasses.replace(self, targets=None, early_stop=False)

    def perturb(self, goal, x, seed, eps):
        best = unseen(tf.zeros_like(x))
        for restart in range(self.restarts):
            best = self._climb(goal, x, best, fold(seed, restart), eps)
        return self._place(x, best, eps)

    def run(self, model, x, y, seed, eps):
        zero = tf.zeros_like(x)
        if self.targets is None and self.restarts == 1:
            goal = self.goal(model, y)
            best = self._climb(goal, x, Best(zero, goal(x)), fold(seed, 0), eps)
            return self._place(x, best, eps)
        targets = self._targets(model, x, y)
        goal = self._goal(model, y, targets[:, 0])
        best = self._attempts(model, x, y, targets, Best(zero, goal(x)), seed, eps)
        return self._place(x, best, eps)

    def _attempts(self, model, x, y, targets, best, seed, eps) -> Best:
        """All restarts for all `targets`, `(batch, targets)`, on the rows still standing."""

        def attempt(number, best):
            # The first goes to all: a row that is wrong already can become more so.
            rows = tf.where(~best.value.fooled | tf.equal(number, 0))[:, 0]
            some = tf.nest.map_structure(lambda all_rows: tf.gather(all_rows, rows), (x, y, best))
            goal = self._goal(
                model, some[1], tf.gather(tf.gather(targets, rows), number // self.restarts, axis=1)
            )
            found = self._climb(goal, some[0], some[2], fold(seed, number), eps)
            best = tf.nest.map_structure(
                lambda old, new: tf.tensor_scatter_nd_update(old, rows[:, None], new), best, found
            )
            return number + 1, best

        _, best = tf.while_loop(
            lambda _, best: tf.reduce_any(~best.value.fooled),
            attempt,
            (tf.constant(0), best),
            parallel_iterations=1,
            maximum_iterations=targets.shape[1] * self.restarts,
        )
        return best

    def _targets(self, model, x, y) -> tf.Tensor:
        """Classes to go for, `(batch, targets)`; for an untargeted attack one column, unused."""
        if self.targets is None:
            return hard_labels(y)[:, None]
        return likely_wrong(call_logits(model, x), hard_labels(y), self.targets)

    def _goal(self, model, y, target):
        if self.targets is None:
            return self.goal(model, y)
        loss = targeted_loss(LOSSES.get(self.loss, self.loss), target)
        return make_goal(model, y, loss, eot=self.eot)

    def _climb(self, goal, x, best, seed, eps) -> Best:
        ball = Ball(self.norm, eps, self.bounds)
        early_stop = self.early_stop and self.eot == 1
        if self.norm == "l1":
            start = normal(tf.shape(x), seed)
            return _apgd_l1.climb(goal, ball, x, start, best, self.steps, early_stop)
        start = ball.project(_on_sphere(x, self.norm, seed) * eps, x)
        return _apgd_climb.climb(goal, ball, x, start, best, self.steps, self.rho, early_stop)

    def _place(self, x, best, eps) -> tf.Tensor:
        return tf.stop_gradient(Ball(self.norm, eps, self.bounds).place(x, best.delta))


def _on_sphere(x, norm, seed) -> tf.Tensor:
    """A random point of the surface of the unit ball, linf or l2, shaped as `x`."""
    draw = uniform(tf.shape(x), seed, -1.0, 1.0) if norm == "linf" else normal(tf.shape(x), seed)
    return draw / rows_of(size(draw, norm), draw)
