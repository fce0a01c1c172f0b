"""Values in words and hashes that are the same in every process, and differ where they do."""

import collections.abc
import dataclasses
import hashlib
import re

import numpy as np
import tensorflow as tf

from keras_robust._keras import is_model

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def describe(value) -> str:
    """`repr`, but the same in every process, and whole for arrays and models."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        inside = ", ".join(f"{name}={describe(part)}" for name, part in fields)
        return f"{type(value).__name__}({inside})"
    if isinstance(value, (np.ndarray, tf.Tensor, tf.Variable)):
        return f"array {array_hash(np.asarray(value))}"
    if is_model(value):
        return f"model {weights_hash(value)}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(describe, value))}]"
    if isinstance(value, collections.abc.Mapping):
        return f"{{{', '.join(f'{k!r}: {describe(v)}' for k, v in value.items())}}}"
    if hasattr(value, "get_config") and not isinstance(value, type):
        # Losses and schedules; Keras 3 numbers their names.
        config = {name: part for name, part in value.get_config().items() if name != "name"}
        return f"{type(value).__name__}({describe(config)})"
    return _ADDRESS.sub("", repr(value))


def array_hash(array) -> str:
    """Of values, shape and dtype."""
    array = np.ascontiguousarray(array)
    return hash_of(repr((array.shape, array.dtype.str)).encode(), array.tobytes())


def weights_hash(model) -> str:
    variables = getattr(model, "variables", None) or ()
    return hash_of(*(array_hash(np.asarray(v)).encode() for v in variables))


def hash_of(*parts: bytes) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little") + part)
    return total.hexdigest()[:16]
