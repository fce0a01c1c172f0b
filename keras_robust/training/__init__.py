"""Adversarial training through `compile` and `fit`."""

from keras_robust.training import objectives
from keras_robust.training._adversarial import AdversarialTraining
from keras_robust.training._ramp import Ramp

__all__ = ["AdversarialTraining", "Ramp", "objectives"]
