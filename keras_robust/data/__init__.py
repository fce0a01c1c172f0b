"""Data sets by name or path as `tf.data` in [0, 1], augmented or corrupted."""

from keras_robust.data._augment import augment
from keras_robust.data._load import Data, arrays, load
from keras_robust.data.corruptions import CORRUPTIONS, corrupt

__all__ = ["CORRUPTIONS", "Data", "arrays", "augment", "corrupt", "load"]
