"""The two Kerases side by side. Besides `_keras.py`, only this file imports them by name."""

import dataclasses
import types


@dataclasses.dataclass(frozen=True)
class Kerases:
    """Where a model comes from and where it goes: two Keras packages, imported.

    Attributes:
        source, target: the modules `keras` and `tf_keras`, in one of the two orders.
        to_legacy: whether the target is `tf_keras`.
    """

    source: types.ModuleType
    target: types.ModuleType
    to_legacy: bool

    @property
    def source_name(self) -> str:
        return "Keras 3" if self.to_legacy else "tf_keras"

    @property
    def target_name(self) -> str:
        return "tf_keras" if self.to_legacy else "Keras 3"


def keras_3() -> types.ModuleType:
    """The package `keras`; raises `ImportError` unless it is Keras 3 on TensorFlow."""
    try:
        import keras
    except ImportError as error:
        raise ImportError("Keras 3 is needed here. Install it: pip install keras.") from error
    if not keras.__version__.startswith("3."):
        raise ImportError(f"Keras 3 is needed here, got {keras.__version__}: pip install -U keras.")
    if keras.backend.backend() != "tensorflow":
        raise ImportError(
            f"Keras 3 runs on {keras.backend.backend()!r} here, but its models can be carried over "
            "on TensorFlow only. Set KERAS_BACKEND=tensorflow before keras is imported."
        )
    return keras


def tf_keras() -> types.ModuleType:
    """The package `tf_keras`; raises `ImportError` with the extra when it is missing."""
    try:
        import tf_keras
    except ImportError as error:
        raise ImportError(
            'tf_keras is needed here. Install it: pip install "keras-robust[compress]".'
        ) from error
    return tf_keras


def both(to_legacy: bool) -> Kerases:
    """Both packages, ordered for a conversion to `tf_keras` or to Keras 3."""
    new, old = keras_3(), tf_keras()
    return Kerases(new, old, True) if to_legacy else Kerases(old, new, False)
