"""Targeted ascent to a wanted confidence, and the temperature that makes networks comparable."""

import dataclasses
import numbers

import numpy as np
import tensorflow as tf

from keras_robust._checks import check_images, check_logit_model, check_logits
from keras_robust.attacks._attack import (
    Attack,
    Value,
    call_logits,
    check_counts,
    hard_labels,
    keep_within,
    rows_of,
    settle,
    value_and_gradient,
)
from keras_robust.attacks._threat import size

# Of the interval of the last step: to far below what a float32 image can tell apart.
_HALVINGS = 16


@dataclasses.dataclass(frozen=True)
class ConfidenceAscent(Attack):
    """The way to where the network is sure of a target class, a constant step at a time.

    Tanay and Griffin 2018, https://arxiv.org/abs/1806.11186: steps of the same l2 length along
    the gradient of the target's probability, clipped to the bounds, until that reaches
    `confidence`. Unlike theirs the last step is cut to where it does. Which length that takes
    depends on the scale of the logits: to compare networks give each the temperature that
    `match_temperature` finds. `y` are the classes to reach; rows that never get there stay as
    they were.

    Attributes:
        eps: radius that examples must keep to, in the units of the inputs; None is any.
        norm: "l2".
        confidence: probability of the target to reach, in (0, 1).
        temperature: the logits are divided by it, > 0.
        step_size: l2 length of a step in the units of the inputs, > 0. Where the way is short
            beside it, it is found too long; the paper's is 1/255.
        steps: most steps.
        bounds: range of valid inputs.

    Raises:
        ValueError: a setting out of its range, or another norm.

    >>> weights = tf.constant([[1.0, -1.0], [-1.0, 1.0]])
    >>> x = tf.constant([[0.6, 0.4]])
    >>> x_adv = ConfidenceAscent(confidence=0.6)(lambda x: x @ weights, x, [1])
    >>> tf.nn.softmax(x_adv @ weights).numpy().round(3)
    array([[0.4, 0.6]], dtype=float32)
    """

    eps: float | None = None
    norm: str = "l2"
    confidence: float = 0.95
    temperature: float = 1.0
    step_size: float = 0.02
    steps: int = 1000
    bounds: tuple[float, float] = (0.0, 1.0)

    searches = True
    targeted = True

    def __post_init__(self):
        settle(self, norms=("l2",), optional_eps=True)
        check_counts(self, "steps")
        _check_confidence(self.confidence)
        for name in ("temperature", "step_size"):
            value = getattr(self, name)
            if not (isinstance(value, numbers.Real) and 0 < value < float("inf")):
                raise ValueError(f"`{name}` must be a finite number > 0, got {name}={value!r}.")

    @property
    def name(self):
        return f"Ascent to {self.confidence:g}"

    def run(self, model, x, y, seed, eps):
        y, low, high = hard_labels(y), *self.bounds

        def goal(x_adv) -> Value:
            # The logarithm's gradient has the direction of the probability's, and does not vanish.
            log = tf.nn.log_softmax(call_logits(model, x_adv) / self.temperature)
            own = tf.gather(log, y, batch_dims=1)
            return Value(own, tf.exp(own) >= self.confidence)

        def step(here, before, reached):
            value, gradient = value_and_gradient(goal, here)
            reached |= value.fooled
            length = rows_of(size(gradient, "l2"), x)
            way = self.step_size * tf.math.divide_no_nan(gradient, length)
            rests = rows_of(reached, x)
            moved = tf.clip_by_value(here + way, low, high)
            return tf.where(rests, here, moved), tf.where(rests, before, here), reached

        here, before, _ = tf.while_loop(
            lambda here, before, reached: ~tf.reduce_all(reached),
            step,
            (x, x, tf.zeros(tf.shape(x)[:1], tf.bool)),
            parallel_iterations=1,
            maximum_iterations=self.steps,
        )
        found = goal(here).fooled

        def halve(short, enough):
            middle = (short + enough) / 2
            fits = goal(before + rows_of(middle, x) * (here - before)).fooled
            return tf.where(fits, short, middle), tf.where(fits, middle, enough)

        ones = tf.ones(tf.shape(x)[:1])
        _, share = tf.while_loop(
            lambda *_: True, halve, (tf.zeros_like(ones), ones), maximum_iterations=_HALVINGS
        )
        x_adv = tf.clip_by_value(before + rows_of(share, x) * (here - before), low, high)
        return keep_within(x, x_adv, found, self.norm, eps)


def match_temperature(model, x, confidence: float = 0.95, batch_size: int = 500) -> float:
    """The temperature at which the median confidence of `model` is `confidence`.

    The confidence is the largest softmax probability of `logits / temperature`. Tanay and Griffin
    2018, https://arxiv.org/abs/1806.11186, set it on each network, so that `ConfidenceAscent`
    compares them at the same scale.

    Args:
        model: Keras model or TensorFlow callable that returns logits.
        x: `(batch, ...)` floating point inputs.
        confidence: the median to reach, between 1 / classes and 1.
        batch_size: rows that the model sees at a time.

    Returns:
        The temperature, > 0.

    Raises:
        TypeError, ValueError: wrong inputs, a median out of its range, or logits that are all
            equal for half of the inputs.

    >>> match_temperature(lambda x: x, tf.constant([[2.0, 0.0]]), confidence=0.75)  # 2 / log(3)
    1.8204784532536746
    """
    check_logit_model(model)
    x = check_images(x).numpy()
    rows = range(0, len(x), batch_size)
    logits = [call_logits(model, tf.constant(x[i : i + batch_size])) for i in rows]
    classes = check_logits(logits[0])
    _check_confidence(confidence)
    if confidence <= 1 / classes:
        raise ValueError(
            f"`confidence` must be above 1 / classes = {1 / classes:g}, got {confidence!r}: no "
            "temperature makes the largest of so many probabilities smaller."
        )
    logits = np.concatenate(logits).astype("float64")
    logits -= logits.max(axis=1, keepdims=True)

    def median(temperature):
        return np.median(1.0 / np.exp(logits / temperature).sum(axis=1))

    low, high = 1e-12, 1e12
    if not median(low) >= confidence:
        raise ValueError(
            f"`model` is as sure of several classes as of the first for half of `x`: no "
            f"temperature gives a median confidence of {confidence}."
        )
    for _ in range(100):  # On a log scale: to the last bit.
        middle = (low * high) ** 0.5
        low, high = (middle, high) if median(middle) >= confidence else (low, middle)
    return float(low)


def _check_confidence(confidence) -> None:
    if not (isinstance(confidence, numbers.Real) and 0 < confidence < 1):
        raise ValueError(f"`confidence` must be in (0, 1), got confidence={confidence!r}.")
