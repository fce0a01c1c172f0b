"""Ships a model: `.tflite` files and SavedModels, each compared with its source once written."""

from keras_robust.export._compare import Exported, ExportMismatch
from keras_robust.export._describe import Description, describe
from keras_robust.export._interpreter import TFLiteModel
from keras_robust.export._serving import serving
from keras_robust.export._tflite import tflite

__all__ = [
    "Description",
    "ExportMismatch",
    "Exported",
    "TFLiteModel",
    "describe",
    "serving",
    "tflite",
]
