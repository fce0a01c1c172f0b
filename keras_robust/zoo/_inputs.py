"""What all built-in models share: their checks and the normalisation of the input."""

import numbers

import numpy as np
import tensorflow as tf

from keras_robust._keras import keras

SMALL = 64  # pixels a side, up to which the deep models get the stem for small images


def normalized_input(input_shape, classes, seed, mean, std):
    """A checked `keras.Input` for images in [0, 1], and `(images - mean) / std` of it."""
    shape = check_shape(input_shape)
    _check_whole(classes, "classes", 2)
    _check_whole(seed, "seed", 0)
    mean, std = _channels(mean, shape[-1], "mean"), _channels(std, shape[-1], "std")
    if np.min(std) <= 0:
        raise ValueError(f"`std` must be > 0, got {std}.")
    scale, offset = 1.0 / np.array(std), -np.array(mean) / np.array(std)
    if np.ndim(scale) == np.ndim(offset) == 0:
        scale, offset = float(scale), float(offset)
    else:
        scale, offset = (np.broadcast_to(v, shape[-1]).tolist() for v in (scale, offset))
    inputs = keras.Input(shape, name="image")
    return inputs, keras.layers.Rescaling(scale, offset, name="normalize")(inputs)


def check_shape(input_shape) -> tuple[int, int, int]:
    """`(height, width, channels)`; raises `ValueError` when it is something else."""
    sized = isinstance(input_shape, tuple | list | tf.TensorShape)
    shape = tuple(input_shape) if sized else ()
    if len(shape) != 3 or not all(isinstance(n, numbers.Integral) and n >= 1 for n in shape):
        raise ValueError(
            f"`input_shape` must be (height, width, channels), got {input_shape!r}. Leave the "
            "batch axis out."
        )
    return tuple(int(n) for n in shape)


def check_smallest(input_shape, least: int, name: str) -> tuple[int, int, int]:
    """The checked shape; raises `ValueError` when a side has fewer than `least` pixels."""
    shape = check_shape(input_shape)
    if min(shape[:2]) < least:
        raise ValueError(
            f"`input_shape` of {name} must be at least {least} x {least} pixels, got {shape}. "
            "Resize the images or take a smaller model."
        )
    return shape


def _check_whole(value, argument: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"`{argument}` must be a whole number >= {least}, got {value!r}.")


def _channels(value, channels: int, argument: str):
    if isinstance(value, numbers.Real):
        value = float(value)
    elif isinstance(value, tuple | list) and len(value) == channels:
        value = [float(v) for v in value]
    else:
        raise ValueError(
            f"`{argument}` must be one number, or one for each of the {channels} channels, got "
            f"{value!r}."
        )
    if not np.all(np.isfinite(value)):
        raise ValueError(f"`{argument}` must be finite, got {value!r}.")
    return value


class Seeds:
    """Seeds for initialisers: each call gives the next one of the sequence that `seed` starts."""

    def __init__(self, seed: int):
        self._rng = np.random.default_rng(seed)

    def __call__(self) -> int:
        return int(self._rng.integers(2**31))
