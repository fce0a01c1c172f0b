"""Our own classes in the other Keras, so that the bridge can carry them.

Such a class is registered under our package and derives from two: a body that says all, in the
words of `self.keras`, and the base class of one Keras. `keras` says which Keras that is.
"""

from keras_robust._keras import keras

PACKAGE = "keras_robust"


def counterpart(cls, package):
    """The class of `package`, either Keras, that is what `cls` is here; None if not ours."""
    introduce(package)  # All of ours, as one may hold another.
    public = keras.saving.get_registered_object(f"{PACKAGE}>{cls.__name__}")
    if public is None or not _is_ours(public) or not issubclass(cls, public.__bases__[0]):
        return None
    return _twin(public, package)


def introduce(package) -> None:
    """Makes all our classes known to `package`, either Keras, so that it can load them."""
    for public in _ours():
        _twin(public, package)


def _ours() -> list:
    known = keras.saving.get_custom_objects()
    return [found for name, found in known.items() if name.startswith(PACKAGE) and _is_ours(found)]


def _is_ours(cls) -> bool:
    return isinstance(cls, type) and vars(cls).get("keras") is keras


def _twin(public, package):
    found = package.saving.get_registered_object(f"{PACKAGE}>{public.__name__}")
    if found is None:
        bases = (public.__bases__[0], _same(public.__bases__[1], package))
        body = {"keras": package, "__doc__": public.__doc__, "__module__": public.__module__}
        found = type(public.__name__, bases, body)
        package.saving.register_keras_serializable(PACKAGE)(found)
    return found


def _same(base, package):
    family = package.layers if issubclass(base, keras.layers.Layer) else package.regularizers
    return getattr(family, base.__name__)
