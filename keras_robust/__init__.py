"""Train Keras models that hold up under attack, shrink them, and prove both on the file that ships.

Names are imported when they are first used: TensorFlow takes seconds, and until then
`TF_USE_LEGACY_KERAS` can still choose the Keras.
"""

import importlib

__version__ = "0.1.0"

_MODULES = (
    "analysis",
    "attacks",
    "bridge",
    "compress",
    "data",
    "distribute",
    "export",
    "layers",
    "losses",
    "training",
    "transfer",
    "zoo",
)
_NAMES = {
    "AdversarialTraining": "training",
    "Distillation": "training",
    "Report": "evaluation",
    "evaluate": "evaluation",
    "from_keras3": "bridge",
    "objectives": "training",
    "to_keras3": "bridge",
}
__all__ = sorted([*_MODULES, *_NAMES, "__version__"])


def __getattr__(name):
    if name in _MODULES:
        return importlib.import_module(f"keras_robust.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"keras_robust.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'keras_robust' has no attribute {name!r}")


def __dir__():
    return __all__
