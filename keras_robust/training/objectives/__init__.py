"""What adversarial training minimises, and what its attack maximises for it."""

from keras_robust.training.objectives._alp import ALP
from keras_robust.training.objectives._awp import AWP
from keras_robust.training.objectives._distil import Distil
from keras_robust.training.objectives._ensemble import Ensemble
from keras_robust.training.objectives._fast import Fast
from keras_robust.training.objectives._free import Free
from keras_robust.training.objectives._gradient_penalty import GradientPenalty
from keras_robust.training.objectives._madry import Madry
from keras_robust.training.objectives._mart import MART
from keras_robust.training.objectives._mixed import Mixed
from keras_robust.training.objectives._objective import (
    Carrying,
    Objective,
    Outcome,
    Step,
    Wrapping,
)
from keras_robust.training.objectives._trades import TRADES
from keras_robust.training.objectives._vat import VAT

__all__ = [
    "ALP",
    "AWP",
    "Carrying",
    "Distil",
    "Ensemble",
    "Fast",
    "Free",
    "GradientPenalty",
    "MART",
    "Madry",
    "Mixed",
    "Objective",
    "Outcome",
    "Step",
    "TRADES",
    "VAT",
    "Wrapping",
]
