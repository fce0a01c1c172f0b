"""Keras 3 to tf_keras and back: models rebuilt node by node, with their weights."""

from keras_robust.bridge._file import load
from keras_robust.bridge._rebuild import from_keras3, to_keras3

__all__ = ["from_keras3", "load", "to_keras3"]
