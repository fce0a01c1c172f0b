"""Layers that make a network easier to compress, or its features harder to fool."""

from keras_robust.layers._binary import sampled_logits
from keras_robust.layers._binary_layers import BinaryConv2D, BinaryDense, BinaryDepthwiseConv2D
from keras_robust.layers._condition_penalty import ConditionPenalty
from keras_robust.layers._counterpart import counterpart, introduce
from keras_robust.layers._group_lasso import GroupLasso
from keras_robust.layers._low_rank_conv import LowRankConv2D
from keras_robust.layers._low_rank_dense import LowRankDense
from keras_robust.layers._low_rank_virtual import LowRankVirtual
from keras_robust.layers._strip import strip_virtual

__all__ = [
    "BinaryConv2D",
    "BinaryDense",
    "BinaryDepthwiseConv2D",
    "ConditionPenalty",
    "GroupLasso",
    "LowRankConv2D",
    "LowRankDense",
    "LowRankVirtual",
    "counterpart",
    "introduce",
    "sampled_logits",
    "strip_virtual",
]
