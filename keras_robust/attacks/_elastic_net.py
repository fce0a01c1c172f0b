"""The elastic-net attack: sparse perturbations by shrinking and thresholding."""

import dataclasses
import math
import numbers

import tensorflow as tf

from keras_robust.attacks._attack import (
    Attack,
    call_logits,
    hard_labels,
    keep_within,
    rows_of,
    settle,
    value_and_gradient,
    within,
)
from keras_robust.attacks._threat import check_finite, size
from keras_robust.attacks._weight_search import (
    Step,
    check_search,
    least_margin,
    margin_goal,
    search_weight,
)

RULES = ("EN", "l1")


@dataclasses.dataclass(frozen=True)
class ElasticNet(Attack):
    """The attack EAD of Chen et al. 2018, https://arxiv.org/abs/1709.04114.

    FISTA, Beck and Teboulle 2009, on
    `c * max(confidence - margin, 0) + |x_adv - x|_2^2 + beta * |x_adv - x|_1` inside the
    bounds, and a search for the weight c, each example its own. Of all steps that succeed the
    one with the smallest distance is returned; where none does, x itself. Distances are in
    units of the bounds' range.

    Attributes:
        eps: l1 radius that examples must keep to, in the units of the inputs; None is any.
        norm: "l1".
        beta: weight of the l1 distance against the squared l2.
        rule: the distance that decides, "EN" for `|.|_2^2 + beta * |.|_1` or "l1". For "l1" the
            objective is without `|.|_2^2`, which would spread the perturbation over more
            entries than needed, and entries are thresholded by `beta` at every step, eq. 8 of
            the paper; for "EN" by `beta` times the step.
        confidence: margin, in the logits' units, by which the class must be missed (reached).
        steps: FISTA's steps for each c.
        search_steps: values of c tried.
        learning_rate: length of the first step; it falls with the square root of what is left.
        initial_const: the first c.
        abort_early: end a run when a tenth of its steps gained nothing.
        targeted: `y` are the labels to reach instead of those to leave.
        bounds: range of valid inputs.

    Raises:
        ValueError: a setting out of its range, or another norm.

    >>> weights = tf.constant([[3.0, -3.0], [-1.0, 1.0]])
    >>> x = tf.constant([[0.5, 0.5]])
    >>> print(ElasticNet(rule="l1")(lambda x: x @ weights, x, [0]).numpy().round(2))
    [[0.17 0.5 ]]
    """

    eps: float | None = None
    norm: str = "l1"
    beta: float = 0.01
    rule: str = "EN"
    confidence: float = 0.0
    steps: int = 1000
    search_steps: int = 9
    learning_rate: float = 0.01
    initial_const: float = 0.01
    abort_early: bool = True
    targeted: bool = False
    bounds: tuple[float, float] = (0.0, 1.0)

    searches = True

    def __post_init__(self):
        settle(self, norms=("l1",), optional_eps=True)
        check_search(self)
        if self.rule not in RULES:
            raise ValueError(f"`rule` must be 'EN' or 'l1', got rule={self.rule!r}.")
        if not (isinstance(self.beta, numbers.Real) and 0 <= self.beta < math.inf):
            raise ValueError(f"`beta` must be a finite number >= 0, got beta={self.beta!r}.")
        object.__setattr__(self, "beta", float(self.beta))
        check_finite(self)

    @property
    def name(self):
        return f"EAD {self.rule}" + (" targeted" if self.targeted else "")

    def run(self, model, x, y, seed, eps):
        def step(variables, x, given, weight, taken):
            new = self._step(margin_goal(self, model, *given), variables, x, weight, taken)
            # The nearest in "EN" may be outside the l1 ball when others are inside: it comes
            # after the farthest of these, and still counts as a gain against others outside.
            inside = within(x, new.x_adv, self.norm, eps)
            return new._replace(distance=tf.where(inside, 0.0, farthest) + new.distance)

        radius = eps / (self.bounds[1] - self.bounds[0])
        farthest = radius if self.rule == "l1" else radius * (radius + self.beta)
        y = hard_labels(y)
        done = margin_goal(self, model, y, self.confidence)(x).fooled
        least = tf.maximum(self.confidence, least_margin(y, call_logits(model, x)))
        x_adv, found = search_weight(self, x, (y, least), done, self._start, step)
        return keep_within(x, x_adv, found, self.norm, eps)

    def _start(self, x):
        return tf.zeros_like(x), tf.zeros_like(x)

    def _step(self, goal, variables, x, weight, taken) -> Step:
        """From `ahead`, where FISTA looks, to the next perturbation, in units of the range."""
        delta, ahead = variables
        low, high = self.bounds
        room = high - low
        value, gradient = value_and_gradient(goal, x + room * ahead)
        short = tf.maximum(self.confidence - value.climb, 0.0)
        pull = rows_of(tf.where(short > 0, weight, 0.0), x) * (room * gradient)
        left = tf.maximum(1.0 - taken / self.steps, 0.0)
        rate = rows_of(self.learning_rate * tf.sqrt(left), x)
        if self.rule == "l1":
            moved = _shrink(ahead + rate * pull, self.beta)
        else:
            moved = _shrink(ahead - rate * (2.0 * ahead - pull), self.beta * rate)
        x_adv = tf.clip_by_value(x + room * moved, tf.minimum(x, low), tf.maximum(x, high))
        moved = tf.clip_by_value(moved, (low - x) / room, (high - x) / room)
        momentum = rows_of(taken / (taken + 3.0), x)
        return Step(
            variables=(moved, moved + momentum * (moved - delta)),
            x_adv=x_adv,
            loss=(self.beta if self.rule == "l1" else 1.0) * self._distance(ahead) + weight * short,
            distance=self._distance(moved),
            success=goal(x_adv).fooled,
        )

    def _distance(self, delta):
        sparse = size(delta, "l1")
        return sparse if self.rule == "l1" else tf.square(size(delta, "l2")) + self.beta * sparse


def _shrink(delta, threshold):
    """Every entry moved towards 0 by `threshold`, and no further."""
    return tf.sign(delta) * tf.maximum(tf.abs(delta) - threshold, 0.0)
