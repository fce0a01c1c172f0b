"""Perturbations brought to a given size."""

import math

import numpy as np
import tensorflow as tf

from keras_robust._seed import as_seed, normal
from keras_robust.attacks import Ball


def at_rms(x, delta, rms, bounds=(0.0, 1.0)) -> np.ndarray:
    """`x + s * delta`, clipped to the bounds, with the `s >= 0` that gives it the distortion `rms`.

    The root mean square is that *after* the clip, so that inputs made from different
    directions compare: a clip takes more from noise on black and white pixels than from a
    perturbation that knows the bounds.

    Args:
        x: `(n, ...)` inside the bounds.
        delta: `(n, ...)`, the directions; a zero row stays zero.
        rms: number, or `(n,)`, in the units of the inputs.
        bounds: range of valid inputs.

    Returns:
        float32, the shape of `x`. Rows whose direction the bounds do not let go so far are as
        far as they can be.

    >>> np.round(at_rms([[0.5, 0.5]], [[1.0, -1.0]], 0.25).astype(float), 3).tolist()
    [[0.75, 0.25]]
    """
    x, delta = np.asarray(x, np.float32), np.asarray(delta, np.float32)
    rms = np.broadcast_to(np.asarray(rms, np.float32), (len(x),))
    radius = rms.reshape(-1, *[1] * (x.ndim - 1)) * math.sqrt(math.prod(x.shape[1:]))
    ball = Ball("l2", tf.constant(radius), bounds)
    return ball.place(tf.constant(x), ball.corner(tf.constant(delta), tf.constant(x))).numpy()


def gaussian(x, rms, seed=0, bounds=(0.0, 1.0)) -> np.ndarray:
    """`x` with Gaussian noise of exactly the distortion `rms` after the clip to the bounds.

    The control of a transfer table: what a perturbation of that size does without an attack.

    Args:
        x, rms, bounds: as for `at_rms`.
        seed: int.
    """
    return at_rms(x, normal(np.shape(x), as_seed(seed)), rms, bounds)
