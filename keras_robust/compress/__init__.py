"""Prune, cluster and quantize a model over TensorFlow Model Optimization; needs tf_keras."""

from keras_robust.compress._cluster import Cluster
from keras_robust.compress._prune import Prune
from keras_robust.compress._quantize import Quantize, load
from keras_robust.compress._recipe import Recipe
from keras_robust.compress._result import Result, Stage

__all__ = ["Cluster", "Prune", "Quantize", "Recipe", "Result", "Stage", "load"]
