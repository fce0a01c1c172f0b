"""Channel numbers under a width multiplier."""

import math
import numbers


def check_width(width) -> float:
    """`width` as a float; raises `ValueError` unless it is a finite number > 0."""
    if isinstance(width, bool) or not isinstance(width, numbers.Real) or not 0 < width < math.inf:
        raise ValueError(f"`width` must be a number > 0, got {width!r}. 1.0 is the paper's net.")
    return float(width)


def scaled(channels: int, width: float, step: int = 8) -> int:
    """`channels * width` as a multiple of `step`, at least one.

    >>> scaled(64, 0.75), scaled(64, 0.01), scaled(240, 1.0, 12)
    (48, 8, 240)
    """
    return max(1, round(channels * width / step)) * step
