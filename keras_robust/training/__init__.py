"""Adversarial training through `compile` and `fit`."""

from keras_robust.training import objectives
from keras_robust.training._adversarial import AdversarialTraining
from keras_robust.training._distillation import Distillation
from keras_robust.training._overfitting_guard import OverfittingGuard
from keras_robust.training._ramp import Ramp
from keras_robust.training._stored_logits import teacher_logits, with_logits
from keras_robust.training._weight_average import WeightAverage

__all__ = [
    "AdversarialTraining",
    "Distillation",
    "OverfittingGuard",
    "Ramp",
    "WeightAverage",
    "objectives",
    "teacher_logits",
    "with_logits",
]
