"""Layers that make a network easier to compress, or its features harder to fool."""

from keras_robust.layers._low_rank_virtual import LowRankVirtual, counterpart
from keras_robust.layers._strip import strip_virtual

__all__ = ["LowRankVirtual", "counterpart", "strip_virtual"]
