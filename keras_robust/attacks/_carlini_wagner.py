"""Carlini and Wagner's search for the smallest Euclidean perturbation."""

import dataclasses
import math

import tensorflow as tf

from keras_robust.attacks._attack import (
    Attack,
    call_logits,
    hard_labels,
    keep_within,
    rows_of,
    settle,
    value_and_gradient,
)
from keras_robust.attacks._threat import check_finite, size
from keras_robust.attacks._weight_search import (
    Step,
    check_search,
    least_margin,
    margin_goal,
    search_weight,
)

# The tanh spans a box this much wider than the bounds. A tanh that only approaches the bounds
# is flat there: black and white pixels then hardly move, and on MNIST 200 steps end at 1.8
# times the distance. The variable is kept where the box is within the bounds.
_STRETCH = 1.1
_EDGE = math.atanh(1.0 / _STRETCH)
# Decay of Adam's two averages, Kingma and Ba 2015.
_FIRST, _SECOND = 0.9, 0.999


@dataclasses.dataclass(frozen=True)
class CarliniWagner(Attack):
    """The l2 attack of Carlini and Wagner 2017, https://arxiv.org/abs/1608.04644.

    Adam on `|x_adv - x|^2 + c * max(confidence - margin, 0)`, with `x_adv` a tanh of its
    variable and so inside the bounds, and a search for the weight c, each example its own. The
    nearest example of all steps that succeeds is returned; where none does, x itself.

    Attributes:
        eps: radius that examples must keep to, in the units of the inputs; None is any.
        norm: "l2".
        confidence: margin, in the logits' units, by which the class must be missed (reached).
        steps: Adam's steps for each c.
        search_steps: values of c tried.
        learning_rate: Adam's, in the units of the tanh's argument.
        initial_const: the first c, for distances in units of the bounds' range.
        abort_early: end a run when a tenth of its steps gained nothing.
        targeted: `y` are the labels to reach instead of those to leave.
        bounds: range of valid inputs.

    Raises:
        ValueError: a setting out of its range, or another norm.

    >>> weights = tf.constant([[1.0, -1.0], [-1.0, 1.0]])
    >>> x = tf.constant([[0.6, 0.4]])
    >>> CarliniWagner()(lambda x: x @ weights, x, [0]).numpy().round(3).tolist()
    [[0.5, 0.5]]
    """

    eps: float | None = None
    norm: str = "l2"
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
        settle(self, norms=("l2",), optional_eps=True)
        check_search(self)
        check_finite(self)

    @property
    def name(self):
        return "CW l2" + (" targeted" if self.targeted else "")

    def run(self, model, x, y, seed, eps):
        def step(variables, x, given, weight, taken):
            return self._step(margin_goal(self, model, *given), variables, x, weight, taken)

        y = hard_labels(y)
        done = margin_goal(self, model, y, self.confidence)(x).fooled
        least = tf.maximum(self.confidence, least_margin(y, call_logits(model, x)))
        x_adv, found = search_weight(self, x, (y, least), done, self._start, step)
        return keep_within(x, x_adv, found, self.norm, eps)

    def _start(self, x):
        low, high = self.bounds
        inside = (2.0 * (x - low) / (high - low) - 1.0) / _STRETCH
        variable = tf.atanh(tf.clip_by_value(inside, -1.0 / _STRETCH, 1.0 / _STRETCH))
        return variable, tf.zeros_like(x), tf.zeros_like(x)

    def _step(self, goal, variables, x, weight, taken) -> Step:
        variable, first, second = variables
        low, high = self.bounds
        room = high - low
        tanh = tf.tanh(variable)
        x_adv = tf.clip_by_value(low + room * (1.0 + _STRETCH * tanh) / 2.0, low, high)
        value, gradient = value_and_gradient(goal, x_adv)
        short = tf.maximum(self.confidence - value.climb, 0.0)
        way = (x_adv - x) / room
        pull = rows_of(tf.where(short > 0, weight, 0.0), x) * (room * gradient)
        slope = (2.0 * way - pull) * (1.0 - tf.square(tanh))
        first = _FIRST * first + (1.0 - _FIRST) * slope
        second = _SECOND * second + (1.0 - _SECOND) * tf.square(slope)
        unbiased = tf.sqrt(1.0 - _SECOND ** (taken + 1.0)) / (1.0 - _FIRST ** (taken + 1.0))
        rate = rows_of(self.learning_rate * unbiased, x)
        variable -= rate * first / (tf.sqrt(second) + 1e-8)
        variable = tf.clip_by_value(variable, -_EDGE, _EDGE)
        distance = tf.square(size(way, "l2"))
        loss = distance + weight * short
        return Step((variable, first, second), x_adv, loss, distance, value.fooled)
