"""What a model does, measured without changing it."""

from keras_robust.analysis._minimum_distortion import (
    Distortions,
    minimum_distortion,
    random_targets,
)
from keras_robust.analysis._transfer import TransferMatrix, transfer_matrix

__all__ = [
    "Distortions",
    "TransferMatrix",
    "minimum_distortion",
    "random_targets",
    "transfer_matrix",
]
