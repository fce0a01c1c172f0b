"""Data sets by name or path as `tf.data` in [0, 1]."""

from keras_robust.data._load import Data, arrays, load

__all__ = ["Data", "arrays", "load"]
