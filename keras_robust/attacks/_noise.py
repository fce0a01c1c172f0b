"""Additive noise of a given size: the control that every attack must beat."""

import dataclasses
import math
import numbers

import tensorflow as tf

from keras_robust._seed import fold, normal, split, uniform
from keras_robust.attacks._attack import Attack, check_counts, settle
from keras_robust.attacks._threat import Ball, check_finite
from keras_robust.attacks._worst import worst_of

KINDS = ("gaussian", "uniform", "salt_and_pepper", "pixel")


@dataclasses.dataclass(frozen=True)
class Noise(Attack):
    """Random noise of the same root mean square in every image, within the bounds.

    The control of Szegedy et al. 2014, https://arxiv.org/abs/1312.6199: a model that noise of
    the size of an attack fools as well is not fooled by the attack.

    What the bounds cut off is made up for by the rest, so that `x_adv - x` has the root mean
    square `rms` to float32 rounding. Only where the drawn values cannot have it, all at the
    bounds, is it smaller.

    Attributes:
        rms: root mean square of the perturbation over all values of an image, in the units of
            the inputs.
        kind: "gaussian"; "uniform"; "salt_and_pepper", values at one of the bounds, as many as
            make up `rms`; "pixel", uniform noise in some pixels, all channels of each.
        repeats: draws for each image, of which the worst is kept.
        share: probability that "pixel" noise perturbs a pixel.
        bounds: range of valid inputs.

    Raises:
        ValueError: a setting out of its range.

    >>> x = np.full((1, 8, 8, 1), 0.5, "float32")
    >>> x_adv = Noise(rms=0.1)(lambda x: x[:, 0, 0] + [[1.0, -1.0]], x, [0])
    >>> round(float(np.sqrt(np.mean((x_adv - x) ** 2))), 4)
    0.1
    """

    rms: float
    kind: str = "gaussian"
    repeats: int = 1
    share: float = 0.5
    bounds: tuple[float, float] = (0.0, 1.0)

    # No ball: an eps would be the root mean square times the root of the number of values.
    eps = None
    norm = "l2"
    needs_gradient = False

    def __post_init__(self):
        settle(self, optional_eps=True)
        check_counts(self, "repeats")
        if self.kind not in KINDS:
            raise ValueError(
                f"`kind` must be one of {', '.join(map(repr, KINDS))}, got kind={self.kind!r}."
            )
        if not (_is_number(self.rms) and math.isfinite(self.rms) and self.rms >= 0):
            raise ValueError(
                "`rms` must be a finite number >= 0 in the units of the inputs, got "
                f"rms={self.rms!r}."
            )
        if not (_is_number(self.share) and 0 < self.share <= 1):
            raise ValueError(f"`share` must be in (0, 1], got share={self.share!r}.")
        object.__setattr__(self, "rms", float(self.rms))
        if self.kind == "salt_and_pepper":
            check_finite(self)

    @property
    def name(self):
        words = [self.kind.replace("_", " "), "noise", f"{self.rms:g}"]
        return " ".join(words + ([f"x{self.repeats}"] if self.repeats > 1 else []))

    def run(self, model, x, y, seed, eps):
        def candidate(number, x):
            return self._add(x, fold(seed, number))

        return worst_of(model, x, y, candidate, self.repeats)

    def _add(self, x, seed):
        ball = Ball("l2", self.rms * math.sqrt(math.prod(x.shape[1:])), self.bounds)
        if self.kind == "salt_and_pepper":
            return _peppered(x, seed, ball)
        one, other = split(seed)
        if self.kind == "gaussian":
            way = normal(tf.shape(x), one)
        else:
            way = uniform(tf.shape(x), one, -1.0, 1.0)
        if self.kind == "pixel":
            # The last axis of images holds the channels of one pixel.
            flat = x.shape.rank < 4
            pixels = tf.shape(x if flat else x[..., :1])
            way = tf.where(uniform(pixels, other) < self.share, way, 0.0)
        # Stretched until what the bounds leave of it has the size.
        return ball.place(x, ball.corner(way, x))


def _peppered(x, seed, ball):
    """Values to the bounds, in random order, until the perturbation has its size."""
    one, other = split(seed)
    rows, count = tf.shape(x)[0], math.prod(x.shape[1:])
    low, high = ball.bounds
    ends = tf.where(uniform(tf.shape(x), one) < 0.5, low, high)
    way = tf.reshape(ends - x, [rows, count])
    order = tf.argsort(uniform([rows, count], other))
    # In float64: in float32 the sum over many values is off by more than the last of them.
    energy = tf.square(tf.cast(tf.gather(way, order, batch_dims=1), tf.float64))
    before = tf.cumsum(energy, axis=1, exclusive=True)
    left = tf.cast(ball.eps, tf.float64) ** 2 - before
    share = tf.sqrt(tf.clip_by_value(tf.math.divide_no_nan(left, energy), 0.0, 1.0))
    back = tf.argsort(order)
    share = tf.cast(tf.gather(share, back, batch_dims=1), tf.float32)
    share = tf.reshape(share, tf.shape(x))
    return tf.where(share == 1.0, ends, x + share * tf.reshape(way, tf.shape(x)))


def _is_number(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
