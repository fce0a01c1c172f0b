"""What a model does, measured without changing it."""

from keras_robust.analysis._condition import ConditionNumbers, condition_numbers
from keras_robust.analysis._minimum_distortion import (
    Distortions,
    minimum_distortion,
    random_targets,
)
from keras_robust.analysis._stability import NoiseStability, noise_stability, plot_stability
from keras_robust.analysis._transfer import TransferMatrix, transfer_matrix
from keras_robust.analysis._variance import VarianceRatio, plot_variance, variance_ratio

__all__ = [
    "ConditionNumbers",
    "Distortions",
    "NoiseStability",
    "TransferMatrix",
    "VarianceRatio",
    "condition_numbers",
    "minimum_distortion",
    "noise_stability",
    "plot_stability",
    "plot_variance",
    "random_targets",
    "transfer_matrix",
    "variance_ratio",
]
