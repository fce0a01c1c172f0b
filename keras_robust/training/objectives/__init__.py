"""What adversarial training minimises, and what its attack maximises for it."""

from keras_robust.training.objectives._madry import Madry
from keras_robust.training.objectives._objective import Objective, Outcome, Step
from keras_robust.training.objectives._trades import TRADES

__all__ = ["TRADES", "Madry", "Objective", "Outcome", "Step"]
