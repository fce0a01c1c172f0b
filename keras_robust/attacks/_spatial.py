"""The worst of small rotations and translations."""

import dataclasses
import itertools
import math
import numbers

import numpy as np
import tensorflow as tf

from keras_robust._seed import fold, uniform
from keras_robust.attacks._attack import Attack, check_counts
from keras_robust.attacks._threat import check_finite, check_threat
from keras_robust.attacks._worst import worst_of


@dataclasses.dataclass(frozen=True)
class Spatial(Attack):
    """Rotations and translations, Engstrom et al. 2019, https://arxiv.org/abs/1712.02779.

    Every image is tried at each point of a grid, from the mildest to the farthest, until it is
    misclassified, or at random points. No norm measures this: `norm` is "spatial" and `eps`
    None. Values between pixels are bilinear, those from outside the image are the low bound.

    Attributes:
        degrees: largest rotation about the middle, either way.
        pixels: largest translation along each axis, either way.
        angles: rotations in the grid, odd to hold none at all.
        shifts: translations along each axis in the grid, odd to hold none at all.
        samples: random transformations of each image to try in place of the grid, or None.
        bounds: range of valid inputs.

    Raises:
        ValueError: a setting out of its range, or, when called, inputs that are no images.

    >>> x = np.zeros((1, 5, 5, 1), "float32")
    >>> x[0, 2, 2] = 1.0
    >>> middle = lambda x: x[:, 2, 2] * [[1.0, -1.0]] + [[0.0, 0.5]]
    >>> Spatial(degrees=0, pixels=1, shifts=3)(middle, x, [0])[0, :, :, 0].numpy().argmax().item()
    7
    """

    degrees: float = 30.0
    pixels: float = 3.0
    angles: int = 31
    shifts: int = 5
    samples: int | None = None
    bounds: tuple[float, float] = (0.0, 1.0)

    eps = None
    norm = "spatial"
    needs_gradient = False
    _channels_last = True

    def __post_init__(self):
        _, bounds = check_threat(0.0, "linf", self.bounds)
        object.__setattr__(self, "bounds", bounds)
        check_counts(self, "angles", "shifts", *(["samples"] if self.samples is not None else []))
        for name, unit, limit in (("degrees", "degrees", 180), ("pixels", "pixels", math.inf)):
            value = getattr(self, name)
            number = isinstance(value, numbers.Real) and not isinstance(value, bool)
            if not number or not (0 <= value <= limit) or math.isinf(value):
                raise ValueError(
                    f"`{name}` must be a finite number of {unit} in [0, {limit}], got "
                    f"{name}={value!r}."
                )
            object.__setattr__(self, name, float(value))
        check_finite(self)

    @property
    def name(self):
        return f"Spatial {self.degrees:g} deg {self.pixels:g} px" + (
            f" x{self.samples}" if self.samples is not None else ""
        )

    def run(self, model, x, y, seed, eps):
        if x.shape.rank != 4:
            raise ValueError(
                "`x` must be images (batch, height, width, channels) to be rotated and "
                f"translated, got shape {tuple(x.shape)}."
            )
        points = self._grid()
        grid = tf.constant(points)

        def candidate(number, x):
            if self.samples is None:
                return transformed(x, grid[number][None], *self.bounds)
            drawn = uniform([tf.shape(x)[0], 3], fold(seed, number), -1.0, 1.0)
            return transformed(x, drawn * self._largest, *self.bounds)

        return worst_of(model, x, y, candidate, self.samples or len(points))

    @property
    def _largest(self) -> np.ndarray:
        return np.float32([self.degrees, self.pixels, self.pixels])

    def _grid(self) -> np.ndarray:
        """Degrees, pixels down and pixels right of each point, `(count, 3)`, mildest first."""

        def steps(count, largest):
            return np.linspace(-1, 1, count) if count > 1 and largest > 0 else [0.0]

        points = list(
            itertools.product(
                steps(self.angles, self.degrees),
                steps(self.shifts, self.pixels),
                steps(self.shifts, self.pixels),
            )
        )
        points.sort(key=lambda point: round(float(np.square(point).sum()), 9))
        return np.float32(points) * self._largest


def transformed(x, moves, low, high) -> tf.Tensor:
    """Images rotated anticlockwise about their middle, then moved.

    Args:
        x: `(batch, height, width, channels)` float32.
        moves: `(batch or 1, 3)` float32, degrees, pixels down and pixels right.
        low, high: the range of values; `low` comes in from outside.
    """
    degrees, down, right = tf.unstack(tf.cast(moves, tf.float32), axis=1)
    size = tf.shape(x)[1:3]
    middle_down, middle_right = tf.unstack((tf.cast(size, tf.float32) - 1.0) / 2.0)
    cos, sin = tf.cos(degrees * (math.pi / 180)), tf.sin(degrees * (math.pi / 180))
    # Each row says from where in the input a pixel of the output comes.
    back_right, back_down = middle_right + right, middle_down + down
    rows = [
        cos,
        -sin,
        middle_right - cos * back_right + sin * back_down,
        sin,
        cos,
        middle_down - sin * back_right - cos * back_down,
        tf.zeros_like(cos),
        tf.zeros_like(cos),
    ]
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=x,
        transforms=tf.stack(rows, axis=1),
        output_shape=size,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=low,
    )
    return tf.clip_by_value(tf.ensure_shape(moved, x.shape), low, high)
