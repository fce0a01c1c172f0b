"""Threat models: norm balls cut with the valid range of inputs."""

import contextlib
import dataclasses
import math
import numbers
import warnings

import numpy as np
import tensorflow as tf

from keras_robust._seed import normal, split, uniform

NORMS = ("linf", "l2", "l1")
# Bounds that cut nothing.
UNBOUNDED = (-1e9, 1e9)


def check_threat(eps, norm, bounds) -> tuple[float, tuple[float, float]]:
    """`eps` and `bounds` in plain numbers.

    Raises:
        ValueError: they and `norm` do not describe a threat model.
    """
    if norm not in NORMS:
        raise ValueError(f"`norm` must be one of {', '.join(map(repr, NORMS))}, got norm={norm!r}.")
    if not (_is_number(eps) and math.isfinite(eps) and eps >= 0):
        raise ValueError(
            f"`eps` must be a finite number >= 0 in the units of the inputs, got eps={eps!r}."
        )
    bounds = tuple(bounds)
    if len(bounds) != 2 or not all(map(_is_number, bounds)) or not bounds[0] < bounds[1]:
        raise ValueError(f"`bounds` must be (low, high) with low < high, got bounds={bounds!r}.")
    return float(eps), (float(bounds[0]), float(bounds[1]))


def warn_of_units(eps, norm, bounds) -> None:
    """Warns of an `eps` that looks like one in steps of 1/255.

    Not at the whole range itself, which is how one asks for no limit, nor at 1, at which attacks
    are traced: see `Attack.for_eps_one`.
    """
    width = bounds[1] - bounds[0]
    if norm == "linf" and eps > max(width, 1.0):
        warnings.warn(
            f"eps={eps:g} is a ball larger than the whole range of images "
            f"[{bounds[0]:g}, {bounds[1]:g}]: did you mean {eps:g}/255?",
            stacklevel=5,
        )


@contextlib.contextmanager
def beyond_range():
    """Attacks made in it may have any `eps`: what it comes from has been warned of, or meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "eps=.*larger than the whole range")
        yield


def check_finite(attack) -> None:
    """Raises unless the `bounds` of `attack`, which measures in their range, are finite."""
    if not all(map(math.isfinite, attack.bounds)):
        raise ValueError(
            f"`bounds` must be finite for {attack.name}, got bounds={attack.bounds!r}. Give the "
            "range of valid inputs, or that of the data."
        )


def float32_below(eps):
    """The largest float32 that is at most the number `eps`; a tensor is left as it is.

    >>> float32_below(0.1) <= 0.1
    True
    """
    if tf.is_tensor(eps):
        return eps
    near = np.float32(eps)
    return float(near if float(near) <= eps else np.nextafter(near, np.float32(0)))


def _is_number(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


@dataclasses.dataclass(frozen=True)
class Ball:
    """The perturbations `delta` with `|delta| <= eps` and `x + delta` inside `bounds`.

    Attributes:
        norm: "linf", "l2" or "l1".
        eps: radius in the units of the inputs, a number or a scalar tensor.
        bounds: range of valid inputs.

    Every method takes batches `(batch, ...)` of float32 and treats each row by itself.
    """

    norm: str
    eps: float | tf.Tensor
    bounds: tuple[float, float] = (0.0, 1.0)

    def random(self, x, seed) -> tf.Tensor:
        """A point drawn uniformly from the ball, then moved into the bounds."""
        shape = tf.shape(x)
        if self.norm == "linf":
            delta = uniform(shape, seed, -1.0, 1.0) * self.eps
        else:
            delta = _unit_ball_point(x, seed, self.norm) * self.eps
        return tf.clip_by_value(delta, *self._box(x))

    def ascend(self, delta, gradient, x, step_size) -> tf.Tensor:
        """`delta` moved by one step along `gradient`, and still in ball and bounds.

        For linf `step_size` times the sign of the gradient, for l2 times the gradient at
        length 1, both projected back. For l1 straight towards the maximiser of the linearised
        loss (Frank-Wolfe), by at most `2 * step_size`, since opposite corners are two radii
        apart: projected gradient steps either spread over many entries or undo one another.
        """
        low, high = self._box(x)
        if self.norm == "l1":
            way = self.corner(gradient, x) - delta
            # Without a gradient no corner is better: that of `_fill_largest` is `x` itself.
            way = tf.where(_size(gradient, "linf") > 0, way, 0.0)
            share = tf.math.divide_no_nan(2.0 * step_size, _size(way, "l1"))
            return delta + way * tf.minimum(share, 1.0)
        if self.norm == "linf":
            moved = delta + step_size * tf.sign(gradient)
        else:
            moved = delta + step_size * _normalised(gradient, "l2")
        return self._project(moved, low, high)

    def project(self, delta, x) -> tf.Tensor:
        """The nearest point of the ball cut with the bounds, in the Euclidean distance.

        For l1 this is the projection on the intersection, not on the ball and then the
        bounds: Croce and Hein 2021, https://arxiv.org/abs/2103.01208.
        """
        return self._project(delta, *self._box(x))

    def corner(self, gradient, x) -> tf.Tensor:
        """The point with the largest inner product with `gradient`: exact, bounds included."""
        low, high = self._box(x)
        if self.norm == "linf":
            return tf.clip_by_value(self.eps * tf.sign(gradient), low, high)
        if self.norm == "l2":
            return _stretch(gradient, low, high, self.eps, limit=None, rounds=16)
        return _fill_largest(gradient, low, high, self.eps)

    def place(self, x, delta) -> tf.Tensor:
        """`x + delta`, inside the ball and the bounds in spite of rounding.

        A float32 sum rounds up as often as down, and over many pixels that leaves an l1
        ball: entries that grew are moved one step of the number format towards `x`.
        """
        if self.norm != "linf":
            # Summed in float64: a float32 sum over 150,000 pixels is itself off by 1e-5.
            size = tf.cast(_size(tf.cast(delta, tf.float64), self.norm), tf.float32)
            limit = self.eps * (1.0 - 2e-7)
            delta *= tf.where(size > limit, tf.math.divide_no_nan(limit, size), 1.0)
        else:
            limit = float32_below(self.eps)
            delta = tf.clip_by_value(delta, -limit, limit)
        moved = x + delta
        # In float64: where the step is longer than `x`, their float32 difference rounds itself.
        way = tf.abs(tf.cast(moved, tf.float64) - tf.cast(x, tf.float64))
        grew = way > tf.cast(tf.abs(delta), tf.float64)
        moved = tf.where(grew, tf.math.nextafter(moved, x), moved)
        # Not a plain clip: an `x` a rounding error outside the bounds must not be moved.
        low, high = tf.minimum(x, self.bounds[0]), tf.maximum(x, self.bounds[1])
        return tf.clip_by_value(moved, low, high)

    def _box(self, x):
        """Room below and above `x`: the perturbations that the bounds allow."""
        return tf.minimum(self.bounds[0] - x, 0.0), tf.maximum(self.bounds[1] - x, 0.0)

    def _project(self, delta, low, high):
        if self.norm == "linf":
            return tf.clip_by_value(delta, tf.maximum(low, -self.eps), tf.minimum(high, self.eps))
        if self.norm == "l2":
            return _stretch(delta, low, high, self.eps, limit=1.0, rounds=5)
        return _shrink_l1(delta, low, high, self.eps)


def _size(delta, norm) -> tf.Tensor:
    """The norm of each row, shaped `(batch, 1, ..., 1)`."""
    axes = list(range(1, delta.shape.rank))
    if norm == "linf":
        return tf.reduce_max(tf.abs(delta), axes, keepdims=True)
    if norm == "l1":
        return tf.reduce_sum(tf.abs(delta), axes, keepdims=True)
    return tf.sqrt(tf.reduce_sum(tf.square(delta), axes, keepdims=True))


def size(delta, norm) -> tf.Tensor:
    """The `norm` of each row of `delta`, `(batch,)`.

    >>> size(tf.constant([[3.0, -4.0]]), "l2").numpy().tolist()
    [5.0]
    """
    return tf.reshape(_size(delta, norm), [-1])


def _normalised(direction, norm) -> tf.Tensor:
    """Each row at length 1. A zero row stays zero, and a tiny one does not underflow."""
    direction = tf.math.divide_no_nan(direction, _size(direction, "linf"))
    return tf.math.divide_no_nan(direction, _size(direction, norm))


def _unit_ball_point(x, seed, norm) -> tf.Tensor:
    """A uniform point of the unit l2 or l1 ball, shaped as `x`."""
    one, other = split(seed)
    shape = tf.shape(x)
    count = tf.cast(tf.size(x[0]), tf.float32)
    if norm == "l1":
        # Signed exponential variables, normalised, are uniform on the l1 sphere. Size and sign
        # of one draw, which is never zero, are independent.
        draw = uniform(shape, one, -1.0, 1.0)
        direction = tf.sign(draw) * -tf.math.log(tf.abs(draw))
    else:
        direction = normal(shape, one)
    ones = tf.concat([shape[:1], tf.ones_like(shape[1:])], axis=0)
    return _normalised(direction, norm) * uniform(ones, other) ** (1.0 / count)


def _stretch(direction, low, high, eps, limit, rounds) -> tf.Tensor:
    """`clip(s * direction, low, high)` with the largest `s <= limit` whose l2 norm is <= eps.

    With `limit=1` that is the projection on ball and box, without one the linear maximiser.
    For a fixed set of clipped entries `s` has a closed form; it grows from round to round as
    entries reach the box, so that any number of rounds stays inside the ball.
    """
    largest = _size(direction, "linf")
    unit = tf.math.divide_no_nan(direction, largest)
    stretch = tf.math.divide_no_nan(eps, _size(unit, "l2"))
    for _ in range(rounds):
        moved = stretch * unit
        clipped = tf.clip_by_value(moved, low, high)
        inside = tf.equal(moved, clipped)
        taken = tf.reduce_sum(tf.square(tf.where(inside, 0.0, clipped)), _axes(unit), keepdims=True)
        free = tf.reduce_sum(tf.square(tf.where(inside, unit, 0.0)), _axes(unit), keepdims=True)
        longer = tf.sqrt(tf.maximum(eps * eps - taken, 0.0) / tf.maximum(free, 1e-30))
        stretch = tf.maximum(stretch, tf.minimum(longer, 1e30))
    if limit is not None:
        stretch = tf.minimum(stretch, limit * largest)
    return tf.clip_by_value(stretch * unit, low, high)


def _shrink_l1(delta, low, high, eps) -> tf.Tensor:
    """The Euclidean projection on the l1 ball cut with the box.

    `sign(delta) * clip(|delta| - t, 0, room)` with the smallest `t >= 0` whose l1 norm is at
    most eps, by bisection, which ends on the side inside the ball.
    """
    room = tf.where(delta > 0, high, -low)
    magnitude = tf.abs(delta)

    def shrunk(threshold):
        return tf.clip_by_value(magnitude - threshold, 0.0, room)

    def halve(outside, inside):
        middle = (outside + inside) / 2
        fits = _size(shrunk(middle), "l1") <= eps
        return tf.where(fits, outside, middle), tf.where(fits, middle, inside)

    inside = _size(magnitude, "linf")
    _, inside = tf.while_loop(
        lambda *_: True, halve, (tf.zeros_like(inside), inside), maximum_iterations=26
    )
    inside = tf.where(_size(shrunk(0.0), "l1") <= eps, 0.0, inside)
    return tf.sign(delta) * shrunk(inside)


def _fill_largest(gradient, low, high, eps) -> tf.Tensor:
    """The linear maximiser over l1 ball and box: entries filled in the order of `|gradient|`."""
    flat = [tf.shape(gradient)[0], math.prod(gradient.shape[1:])]
    magnitude = tf.reshape(tf.abs(gradient), flat)
    # Not times zero: the room is infinite where the bounds are.
    room = tf.where(gradient != 0, tf.where(gradient > 0, high, -low), 0.0)
    order = tf.argsort(magnitude, direction="DESCENDING", stable=True)
    sorted_room = tf.gather(tf.reshape(room, flat), order, batch_dims=1)
    before = tf.cumsum(sorted_room, axis=1, exclusive=True)
    filled = tf.clip_by_value(eps - before, 0.0, sorted_room)
    back = tf.argsort(order)
    return tf.sign(gradient) * tf.reshape(tf.gather(filled, back, batch_dims=1), tf.shape(gradient))


def _axes(x) -> list[int]:
    return list(range(1, x.shape.rank))
