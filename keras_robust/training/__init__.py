"""Adversarial training through `compile` and `fit`."""

from keras_robust.training import objectives
from keras_robust.training._adversarial import AdversarialTraining
from keras_robust.training._distillation import Distillation
from keras_robust.training._group_lasso import ProximalGroupLasso
from keras_robust.training._layer_feedback import LayerFeedback
from keras_robust.training._overfitting_guard import OverfittingGuard
from keras_robust.training._ramp import Ramp
from keras_robust.training._stored_logits import teacher_logits, with_logits
from keras_robust.training._weight_average import WeightAverage
from keras_robust.training._weight_decay import decay_kernels_only

__all__ = [
    "AdversarialTraining",
    "Distillation",
    "LayerFeedback",
    "OverfittingGuard",
    "ProximalGroupLasso",
    "Ramp",
    "WeightAverage",
    "decay_kernels_only",
    "objectives",
    "teacher_logits",
    "with_logits",
]
