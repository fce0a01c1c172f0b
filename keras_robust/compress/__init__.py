"""Prune, cluster and quantize a model over TensorFlow Model Optimization, which needs tf_keras.

Packing a model into a small file works under either Keras.
"""

from keras_robust.compress._cluster import Cluster
from keras_robust.compress._prune import Prune
from keras_robust.compress._quantize import Quantize, load
from keras_robust.compress._recipe import Recipe
from keras_robust.compress._result import Result, Stage
from keras_robust.compress.packed import SizeReport, pack, size_report, unpack

__all__ = [
    "Cluster",
    "Prune",
    "Quantize",
    "Recipe",
    "Result",
    "SizeReport",
    "Stage",
    "load",
    "pack",
    "size_report",
    "unpack",
]
