"""What building a model from a file may ask for."""

import contextlib
import math

import numpy as np
import tensorflow as tf

from keras_robust.bridge._trusted import Untrusted

_UNSAVED = 1 << 18  # Bytes that layers keep beside their weights: seeds, states.


@contextlib.contextmanager
def at_most(count: int):
    """Refuses to make variables of more than `count` bytes in all, before they take memory."""
    made = 0

    def make(create, **settings):
        nonlocal made
        shape, dtype, value = map(settings.get, ("shape", "dtype", "initial_value"))
        if callable(value) and (shape is None or dtype is None):
            with tf.Graph().as_default():
                value = value()
        if shape is None:
            shape = np.shape(value) if not hasattr(value, "shape") else value.shape
        if dtype is None:
            dtype = value.dtype if hasattr(value, "dtype") else tf.float64
        made += math.prod(tf.TensorShape(shape)) * tf.as_dtype(dtype).size
        if made > count + _UNSAVED:
            raise Untrusted(f"it asks for {made:,} bytes of weights or more, and holds {count:,}")
        return create(**settings)

    with tf.variable_creator_scope(make):
        yield


def check_weights(path) -> None:
    """Raises unless all that an HDF5 file of weights names is in it: it may name other files."""
    import h5py

    def look(group):
        for name in group:
            own = isinstance(group.get(name, getlink=True), h5py.HardLink)
            found = group[name] if own else None
            if isinstance(found, h5py.Group):
                look(found)
            elif found is None or found.external or found.is_virtual:
                raise Untrusted(f"its weights name another place than their own, at {name!r}")

    with h5py.File(path, "r") as file:
        look(file)
