"""Where Square looks next: random windows of an image, and what is put into them."""

import math
import typing

import numpy as np
import tensorflow as tf

from keras_robust._seed import split, uniform
from keras_robust.attacks._threat import Ball, size


class Frame(typing.NamedTuple):
    """Every input as an image of rows, columns and channels; a line is an image of one row."""

    rows: int
    columns: int
    channels: int

    @classmethod
    def of(cls, x):
        *rows, columns, channels = (*x.shape[1:], 1) if x.shape.rank == 2 else x.shape[1:]
        return cls(math.prod(rows), columns, channels)

    @property
    def longest(self) -> int:
        """The longest side that a window may have."""
        return self.columns if self.rows == 1 else min(self.rows, self.columns)

    def window(self, side):
        """Height and width of a window."""
        return (1 if self.rows == 1 else side), side

    def sides(self, share) -> np.ndarray:
        """Sides of windows that cover these shares of the image, to the nearest whole number."""
        area = share * self.rows * self.columns
        return np.round(area if self.rows == 1 else np.sqrt(area))

    def corner(self, share, side) -> list[tf.Tensor]:
        """Top and left, int32 `(batch,)` each, from `share` uniform in (0, 1), `(batch, 2)`."""
        free = tf.stack([self.rows, self.columns]) - tf.stack(self.window(side))
        # The authors' code leaves out the last row and column, where large images show little.
        count = free if self.longest >= 16 and self.rows > 1 else free + 1
        # The product of the largest shares may round up to the whole.
        drawn = tf.cast(share * tf.cast(count, tf.float32), tf.int32)
        return tf.unstack(tf.minimum(drawn, free), axis=1)


class Signs:
    """The search in the linf ball: every value at an end of its range, window by window.

    Attributes:
        ball: the threat model.
        frame: shape of the images.
        sizes: int32 `(queries,)`, the side of the window at each query.
    """

    def __init__(self, ball: Ball, frame: Frame, sizes: np.ndarray):
        self.ball, self.frame, self.sizes = ball, frame, tf.constant(sizes)

    def ground(self, x) -> tuple[tf.Tensor, ...]:
        """What `start` and `change` need of each image: the two ends of its range."""
        eps = tf.fill(tf.shape(x), tf.cast(self.ball.eps, tf.float32))
        return self.ball.place(x, -eps), self.ball.place(x, eps)

    def start(self, ground, seed) -> tf.Tensor:
        """Vertical stripes."""
        shape = [tf.shape(ground[0])[0], 1, self.frame.columns, self.frame.channels]
        return tf.where(uniform(shape, seed) < 0.5, *ground)

    def change(self, ground, x_adv, query, seed) -> tf.Tensor:
        """One window at one end, drawn for each channel."""
        frame, side = self.frame, self.sizes[query]
        share = uniform([tf.shape(x_adv)[0], 2 + frame.channels], seed)
        window = self._mask(*frame.corner(share[:, :2], side), *frame.window(side))
        filled = tf.where(share[:, None, None, 2:] < 0.5, *ground)
        return tf.where(window, filled, x_adv)

    def _mask(self, top, left, height, width):
        down = tf.range(self.frame.rows) - top[:, None]
        right = tf.range(self.frame.columns) - left[:, None]
        down, right = (down >= 0) & (down < height), (right >= 0) & (right < width)
        return down[:, :, None, None] & right[:, None, :, None]


class Bumps:
    """The search in the l2 and l1 balls: the mass of one window goes into a bump in another.

    A bump is a mountain beside a valley, each higher towards its middle.

    Attributes:
        ball: the threat model.
        frame: shape of the images.
        sizes: int32 `(queries,)`, the side of the window at each query.
    """

    def __init__(self, ball: Ball, frame: Frame, sizes: np.ndarray):
        self.ball, self.frame = ball, frame
        # A window has a middle, and room for a bump around it.
        sizes = np.clip(np.maximum(sizes, 3) // 2 * 2 + 1, 1, frame.longest)
        sides, level = np.unique(sizes, return_inverse=True)
        self.sides, self.level = tf.constant(sides, tf.int32), tf.constant(level, tf.int32)
        # Each bump laid both ways, in a table padded to the largest.
        height, width = frame.window(int(sides[-1]))
        table = np.zeros((len(sides), 2, height, width), "float32")
        for bumps, side in zip(table, sides, strict=True):
            height, width = frame.window(side)
            bumps[:, :height, :width] = bumps_of(height, width, ball.norm)
        self.table = tf.constant(table)

    def ground(self, x) -> tuple[tf.Tensor, ...]:
        """What `start` and `change` need of each image: itself."""
        return (x,)

    def start(self, ground, seed) -> tf.Tensor:
        """Bumps that tile the image, each with its own sign and the way it lies."""
        frame, (one, other) = self.frame, split(seed)
        height, width = frame.window(max(frame.longest // 5, 1))
        down, right = frame.rows // height, frame.columns // width
        tiles = np.tile(bumps_of(height, width, self.ball.norm), (1, down, right))
        upright, lying = (tf.constant(tile[..., None], tf.float32) for tile in tiles)
        batch = tf.shape(ground[0])[0]
        signs = _signs(uniform([batch, down, right, frame.channels], one))
        lies = uniform([batch, down, right, 1], other) < 0.5
        signs, lies = (
            tf.repeat(tf.repeat(each, height, axis=1), width, axis=2) for each in (signs, lies)
        )
        delta = signs * tf.where(lies, lying, upright)
        above, before = (frame.rows - down * height) // 2, (frame.columns - right * width) // 2
        below = frame.rows - down * height - above
        behind = frame.columns - right * width - before
        return self._fit(
            ground[0], tf.pad(delta, [[0, 0], [above, below], [before, behind], [0, 0]])
        )

    def change(self, ground, x_adv, query, seed) -> tf.Tensor:
        """Empties one window of each image, and lays its mass and all that is spare in another."""
        (x,), frame, level = ground, self.frame, self.level[query]
        side = self.sides[level]
        height, width = frame.window(side)
        share = uniform([tf.shape(x)[0], 5 + frame.channels], seed)
        into, out = frame.corner(share[:, :2], side), frame.corner(share[:, 2:4], side)
        bump = tf.gather(self.table[level], tf.cast(share[:, 4] < 0.5, tf.int32))
        bump = tf.reshape(bump[:, :height, :width], [-1, height * width, 1])

        delta = x_adv - x
        flat = tf.reshape(delta, [-1, frame.channels])
        places, emptied = self._places(*into, height, width), self._places(*out, height, width)
        old, given = tf.gather(flat, places), tf.gather(flat, emptied)
        # What both windows share counts once.
        given = tf.where(self._inside(emptied, *into, height, width)[..., None], 0.0, given)
        new = bump * _signs(share[:, None, 5:]) + self._unit(old)
        new = self._unit(new) * self._mass(delta, old, given)

        flat = tf.tensor_scatter_nd_update(flat, emptied[..., None], tf.zeros_like(given))
        flat = tf.tensor_scatter_nd_update(flat, places[..., None], new)
        return self._fit(x, tf.reshape(flat, tf.shape(x)))

    def _places(self, top, left, height, width) -> tf.Tensor:
        """Where the pixels of each image's window lie among those of the batch, `(batch, area)`."""
        row = tf.range(tf.size(top)) * self.frame.rows + top
        pixel = tf.range(height)[:, None] * self.frame.columns + tf.range(width)
        return (row * self.frame.columns + left)[:, None] + tf.reshape(pixel, [-1])

    def _inside(self, places, top, left, height, width) -> tf.Tensor:
        down = places // self.frame.columns % self.frame.rows - top[:, None]
        right = places % self.frame.columns - left[:, None]
        return (down >= 0) & (down < height) & (right >= 0) & (right < width)

    def _mass(self, delta, old, given) -> tf.Tensor:
        """The size of the new bump, `(batch, 1, channels)`: the windows' own and what is spare."""
        whole = size(delta, self.ball.norm)[:, None, None]
        if self.ball.norm == "l2":
            spare = tf.maximum(tf.square(self.ball.eps) - tf.square(whole), 0.0)
            taken = tf.reduce_sum(tf.square(old) + tf.square(given), axis=1, keepdims=True)
            return tf.sqrt(spare / self.frame.channels + taken)
        # More than there is: the projection takes it back from the smallest values.
        taken = tf.reduce_sum(tf.abs(old) + tf.abs(given), axis=1, keepdims=True)
        return tf.maximum(self.ball.eps - whole, 0.0) + taken * self.frame.channels

    def _unit(self, window) -> tf.Tensor:
        """Each channel of each window at length 1."""
        if self.ball.norm == "l2":
            length = tf.sqrt(tf.reduce_sum(tf.square(window), axis=1, keepdims=True))
        else:
            length = tf.reduce_sum(tf.abs(window), axis=1, keepdims=True)
        return tf.math.divide_no_nan(window, length)

    def _fit(self, x, delta) -> tf.Tensor:
        """`x + delta` inside bounds and ball, up to rounding."""
        if self.ball.norm == "l1":
            return x + _shrink(delta, x, self.ball.eps, self.ball.bounds)
        scale = tf.math.divide_no_nan(self.ball.eps, size(delta, "l2"))
        return tf.clip_by_value(x + delta * scale[:, None, None, None], *self.ball.bounds)


def bumps_of(height: int, width: int, norm: str) -> np.ndarray:
    """A mountain above a valley, and the same beside it, `(2, height, width)`, at length 1.

    >>> bumps_of(3, 1, "l1")[0].ravel().round(2).tolist()
    [0.5, -0.03, -0.47]
    """
    if height == 1:
        bumps = [_pair(width, 1, norm).T] * 2
    else:
        bumps = [_pair(height, width, norm), _pair(width, height, norm).T]
    power = 2 if norm == "l2" else 1
    return np.stack([bump / np.sum(np.abs(bump) ** power) ** (1 / power) for bump in bumps])


def _pair(height, width, norm):
    upper, lower = (_mountain(part, width, norm) for part in (height // 2, height - height // 2))
    return np.concatenate([upper, -lower])


def _mountain(height, width, norm):
    """Steps around the middle, the k-th of height 1/k**2 for l2 and 1/k**4 for l1, at length 1."""
    down = np.abs(np.arange(height) - height // 2)
    right = np.abs(np.arange(width) - width // 2)
    power, count = (2, 4)[norm == "l1"], max(height, width) // 2 + 1
    steps = np.cumsum(np.arange(count, 0, -1.0) ** -power)[::-1]
    hill = steps[np.maximum(down[:, None], right)]
    length = np.sum(np.abs(hill) ** (2 if norm == "l2" else 1)) ** (0.5 if norm == "l2" else 1)
    return hill / max(length, 1e-12)


def _shrink(delta, x, eps, bounds) -> tf.Tensor:
    """`Ball.project` for l1 up to a thousandth of `eps`, in less than half the time.

    Newton's steps to the threshold, and halving where they leave what is known to hold it.
    """
    low, high = tf.minimum(bounds[0] - x, 0.0), tf.maximum(bounds[1] - x, 0.0)
    room, magnitude = tf.where(delta > 0, high, -low), tf.abs(delta)

    def closer(threshold, below, above, _):
        left = magnitude - threshold
        kept = tf.clip_by_value(left, 0.0, room)
        whole = tf.reduce_sum(kept, [1, 2, 3], keepdims=True)
        steep = tf.math.count_nonzero((left > 0) & (left < room), [1, 2, 3], True, tf.float32)
        fits, loose = whole <= eps, whole < 0.999 * eps
        below, above = tf.where(fits, below, threshold), tf.where(fits, threshold, above)
        step = threshold + (whole - 0.9995 * eps) / tf.maximum(steep, 1.0)
        step = tf.where((step > below) & (step < above), step, (below + above) / 2)
        settled = fits & (~loose | tf.equal(threshold, 0.0))
        return tf.where(settled, threshold, step), below, above, settled

    none = tf.zeros_like(delta[:, :1, :1, :1])
    largest = tf.reduce_max(magnitude, [1, 2, 3], keepdims=True)
    threshold, _, above, settled = tf.while_loop(
        lambda threshold, below, above, settled: tf.reduce_any(~settled),
        closer,
        (none, none, largest, tf.zeros_like(none, tf.bool)),
        parallel_iterations=1,
        maximum_iterations=20,
    )
    threshold = tf.where(settled, threshold, above)
    return tf.sign(delta) * tf.clip_by_value(magnitude - threshold, 0.0, room)


def _signs(share) -> tf.Tensor:
    return tf.where(share < 0.5, -1.0, 1.0)
