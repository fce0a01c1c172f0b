"""`corrupt`: one of the fifteen common corruptions on a batch of images."""

import numbers

import numpy as np

from keras_robust._checks import check_images
from keras_robust.data.corruptions._blur import BLUR
from keras_robust.data.corruptions._digital import DIGITAL
from keras_robust.data.corruptions._draws import Draws
from keras_robust.data.corruptions._noise import NOISE
from keras_robust.data.corruptions._weather import WEATHER

TABLE = NOISE | BLUR | WEATHER | DIGITAL
CORRUPTIONS = tuple(TABLE)
SEVERITIES = (1, 2, 3, 4, 5)
# Halfway, in ratios, between the sides of 32 and 224 that the two tables were made for.
_SMALL_SIDE = 85
# Values worked on at a time.
_PORTION = 2**22


def corrupt(
    x,
    name: str,
    severity: int = 3,
    seed: int = 0,
    *,
    bounds=(0.0, 1.0),
    table: str | None = None,
    first: int = 0,
) -> np.ndarray:
    """Images under one of the 15 common corruptions of Hendrycks and Dietterich 2019.

    https://arxiv.org/abs/1903.12261. The strengths are those published: CIFAR-10-C's for small
    images, ImageNet-C's for large ones. Frost deviates: its ice is made from random numbers,
    where the original cuts it out of photographs. Nothing is rounded to 8 bits but in JPEG.

    Args:
        x: `(n, h, w, 1)` or `(n, h, w, 3)`, floating point, in `bounds`, sides >= 8.
        name: one of `kr.data.CORRUPTIONS`.
        severity: 1 (mild) to 5.
        seed: int >= 0. The same seed gives the same result on every call; the severities
            share their random draws.
        bounds: range of valid inputs, black and white.
        table: "small" or "large"; None takes the small one when the shorter side is below 85.
        first: number of the first image: a large set corrupted in parts, each with the
            number of its first image, equals the whole corrupted at once.

    Returns:
        float32, shape of `x`, inside `bounds`.

    Raises:
        TypeError: `x` is not floating point.
        ValueError: anything else that does not fit; the message names the fix.

    >>> x = np.full((2, 32, 32, 3), 0.5, "float32")
    >>> foggy = corrupt(x, "fog", severity=3, seed=0)
    >>> foggy.shape, foggy.dtype.name, bool(foggy.std() > 0.01)
    ((2, 32, 32, 3), 'float32', True)
    """
    corruption = TABLE[check_name(name)]
    _check_whole("severity", severity, 1, 5)
    _check_whole("seed", seed, 0)
    _check_whole("first", first, 0)
    low, high = _check_bounds(bounds)
    x = _check_shape(check_images(x, (low, high)).numpy())
    levels = corruption.small if _is_small(table, x.shape) else corruption.large
    out = np.empty_like(x)
    portion = max(1, _PORTION // int(np.prod(x.shape[1:])))
    for start in range(0, len(x), portion):
        part = ((x[start : start + portion] - low) / (high - low)).clip(0, 1)
        draws = Draws(int(seed), name, int(first) + start, len(part))
        changed = corruption.apply(part, levels[severity - 1], draws).clip(0, 1)
        out[start : start + portion] = low + (high - low) * changed
    return out.clip(low, high)


def check_name(name) -> str:
    """`name`; raises `ValueError` unless it is one of the fifteen."""
    if not isinstance(name, str) or name not in TABLE:
        raise ValueError(
            f"`name` must be one of kr.data.CORRUPTIONS ({', '.join(CORRUPTIONS)}), got {name!r}."
        )
    return name


def family_of(name: str) -> str:
    """The family, "noise", "blur", "weather" or "digital"; "other" for an unknown name."""
    return TABLE[name].family if name in TABLE else "other"


def _check_whole(argument, value, least, most=None):
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        allowed = f"in [{least}, {most}]" if most is not None else f">= {least}"
        raise ValueError(f"`{argument}` must be an int {allowed}, got {value!r}.")


def _check_bounds(bounds):
    try:
        low, high = (float(end) for end in bounds)
    except (TypeError, ValueError):
        raise ValueError(f"`bounds` must be two numbers (low, high), got {bounds!r}.") from None
    if not np.isfinite(high - low) or low >= high:
        raise ValueError(f"`bounds` must be finite with low < high, got {bounds!r}.")
    return low, high


def _check_shape(x):
    if x.ndim != 4 or x.shape[-1] not in (1, 3) or min(x.shape[1:3]) < 8:
        raise ValueError(
            "`x` must be images (n, h, w, 1) or (n, h, w, 3) of at least 8 x 8 pixels, got shape "
            f"{x.shape}. A single image goes in as x[None], grey ones as x[..., None]."
        )
    return x


def _is_small(table, shape) -> bool:
    if table not in (None, "small", "large"):
        raise ValueError(f'`table` must be "small", "large" or None, got {table!r}.')
    return min(shape[1:3]) < _SMALL_SIDE if table is None else table == "small"
