"""Train Keras models that hold up under attack, shrink them, and prove both on the file that ships."""

from keras_robust import attacks, data, losses, training, zoo
from keras_robust.training import AdversarialTraining, objectives

__version__ = "0.1.0"
__all__ = [
    "AdversarialTraining",
    "__version__",
    "attacks",
    "data",
    "losses",
    "objectives",
    "training",
    "zoo",
]
