"""Data sets by name or path as `tf.data` in [0, 1], and common corruptions of images."""

from keras_robust.data._load import Data, arrays, load
from keras_robust.data.corruptions import CORRUPTIONS, corrupt

__all__ = ["CORRUPTIONS", "Data", "arrays", "corrupt", "load"]
