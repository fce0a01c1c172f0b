"""What a corruption is: a function and its published strengths."""

from collections.abc import Callable
from typing import NamedTuple


class Corruption(NamedTuple):
    """One of the fifteen.

    Attributes:
        family: "noise", "blur", "weather" or "digital".
        apply: `(x, level, draws) -> x'`; x is float32 `(n, h, w, 1 or 3)` in [0, 1]; the
            result may leave [0, 1], where it is clipped afterwards.
        small: levels of severities 1 to 5 for images of about 32 x 32 pixels (CIFAR-10-C).
        large: the same for images of about 224 x 224 pixels (ImageNet-C).
    """

    family: str
    apply: Callable
    small: tuple
    large: tuple
