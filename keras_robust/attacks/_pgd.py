"""Projected gradient descent on the negative loss, with restarts and momentum."""

import collections.abc
import dataclasses

import tensorflow as tf

from keras_robust._seed import fold
from keras_robust.attacks._attack import (
    Ascent,
    check_counts,
    check_loss,
    rows_of,
    settle,
    value_and_gradient,
)
from keras_robust.attacks._best import Best, better, unseen
from keras_robust.attacks._threat import Ball

# Unrolled loops run a little faster and trace slower: measured in benchmarks/train_step.py.
_UNROLL = 10


@dataclasses.dataclass(frozen=True)
class PGD(Ascent):
    """Projected gradient descent, Madry et al. 2018, https://arxiv.org/abs/1706.06083.

    With `momentum` it is MI-FGSM of Dong et al. 2018, https://arxiv.org/abs/1710.06081;
    without random start the basic iterative method of Kurakin et al. 2017.

    Attributes:
        eps: radius in the units of the inputs.
        norm: "linf", "l2" or "l1".
        steps: gradient steps of each restart.
        step_size: length of a step in the attack's norm; None is `2.5 * eps / steps`.
        random_start: start at a random point of the ball instead of at `x`.
        restarts: runs with other starts, the best kept; more than one needs `random_start`.
        momentum: decay of the accumulated gradient, in [0, 1]; 0 is none.
        loss: "ce", "margin", "dlr", or a function `(labels, logits) -> (batch,)` to climb.
        targeted: `y` are the labels to reach instead of those to leave.
        early_stop: an example that fools the model is not moved on. The same examples fool the
            model with and without, only sooner.
        keep_best: return the best iterate seen (first one that fools the model, then highest
            loss), not the last, for one more forward pass. None: yes, but not in training.
        eot: calls of a randomised model that each gradient is the mean of.
        bounds: range of valid inputs.

    Raises:
        ValueError: a setting out of its range, or restarts without random start.

    >>> weights = tf.constant([[1.0, -1.0], [-2.0, 2.0]])
    >>> x = tf.constant([[0.5, 0.5]])
    >>> PGD(eps=0.25, steps=5)(lambda x: x @ weights, x, [0]).numpy().tolist()
    [[0.25, 0.75]]
    """

    eps: float
    norm: str = "linf"
    steps: int = 20
    step_size: float | None = None
    random_start: bool = True
    restarts: int = 1
    momentum: float = 0.0
    loss: str | collections.abc.Callable = "ce"
    targeted: bool = False
    early_stop: bool = False
    keep_best: bool | None = None
    eot: int = 1
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self):
        settle(self)
        check_loss(self.loss, self.targeted)
        check_counts(self, "steps", "restarts", "eot")
        if self.step_size is not None and not self.step_size >= 0:
            raise ValueError(
                f"`step_size` must be >= 0 in the units of the inputs, got {self.step_size!r}."
            )
        if self.restarts > 1 and not self.random_start:
            raise ValueError(
                f"restarts={self.restarts} without random start repeats one and the same run. "
                "Set random_start=True, or restarts=1."
            )
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"`momentum` must be in [0, 1], got momentum={self.momentum!r}.")

    @property
    def name(self):
        kind = "MI-FGSM" if self.momentum else "PGD" if self.random_start else "BIM"
        parts = [f"{kind}-{self.steps}"]
        parts += [f"x{self.restarts}"] if self.restarts > 1 else []
        parts += [self.norm] if self.norm != "linf" else []
        parts += [self.loss] if isinstance(self.loss, str) and self.loss != "ce" else []
        parts += [f"eot {self.eot}"] if self.eot > 1 else []
        return " ".join(parts + (["targeted"] if self.targeted else []))

    def for_eps_one(self):
        if self.step_size is None or self.eps == 0:
            return dataclasses.replace(self, eps=1.0, step_size=None)
        return dataclasses.replace(self, eps=1.0, step_size=self.step_size / self.eps)

    def for_training(self):
        keep_best = False if self.keep_best is None else self.keep_best
        return dataclasses.replace(self, keep_best=keep_best)

    def perturb(self, goal, x, seed, eps):
        ball = Ball(self.norm, eps, self.bounds)
        ratio = self.for_eps_one().step_size
        step_size = eps * (2.5 / self.steps if ratio is None else ratio)
        best = None
        for restart in range(self.restarts):
            delta = ball.random(x, fold(seed, restart)) if self.random_start else tf.zeros_like(x)
            done = tf.zeros(tf.shape(x)[:1], tf.bool) if best is None else best.value.fooled
            run = self._climb(goal, ball, x, delta, step_size, done)
            best = run if best is None else better(best, run)
        return tf.stop_gradient(ball.place(x, best.delta))

    def _climb(self, goal, ball, x, delta, step_size, done) -> Best:
        """One run of `steps` steps from `delta`; rows that are `done` may rest."""

        def step(delta, velocity, best):
            value, gradient = value_and_gradient(goal, x + delta)
            if self.momentum:
                axes = list(range(1, x.shape.rank))
                scale = tf.reduce_mean(tf.abs(gradient), axes, keepdims=True)
                velocity = self.momentum * velocity + tf.math.divide_no_nan(gradient, scale)
                gradient = velocity
            if self._tracks_best:
                best = better(best, Best(delta, value))
            moved = ball.ascend(delta, gradient, x, step_size)
            if self.early_stop:
                moved = tf.where(rows_of(value.fooled | done, x), delta, moved)
            return moved, velocity, best

        best = unseen(delta)
        velocity = tf.zeros_like(x) if self.momentum else tf.zeros([])
        delta, velocity, best = self._loop(step, delta, velocity, best, done)
        if not self._tracks_best and self.restarts == 1:
            return unseen(delta)
        last = Best(delta, goal(x + delta))
        return better(best, last) if self._tracks_best else last

    def _loop(self, step, delta, velocity, best, done):
        if self.steps <= _UNROLL and not self.early_stop:
            for _ in range(self.steps):
                delta, velocity, best = step(delta, velocity, best)
            return delta, velocity, best

        def any_left(delta, velocity, best):
            return tf.reduce_any(~(best.value.fooled | done)) if self.early_stop else True

        return tf.while_loop(
            any_left,
            step,
            (delta, velocity, best),
            parallel_iterations=1,
            maximum_iterations=self.steps,
        )

    @property
    def _tracks_best(self) -> bool:
        # Stopping early is only safe when what was reached is kept.
        return self.early_stop or self.keep_best is not False
