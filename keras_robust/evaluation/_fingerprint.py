"""Hashes of what the results of an evaluation depend on."""

import collections.abc
import dataclasses
import hashlib
import re
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_robust._keras import is_model

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def array_hash(array) -> str:
    """Of values, shape and dtype."""
    array = np.ascontiguousarray(array)
    return _hash(repr((array.shape, array.dtype.str)).encode(), array.tobytes())


def data_hash(x, y) -> str:
    """The same for the same images and labels in the same order: which outcomes can be paired."""
    return _hash(array_hash(x).encode(), array_hash(np.asarray(y, np.int64)).encode())


def fingerprint(x, y, columns, artifacts, labels, settings) -> dict[str, str]:
    """All that the results of an evaluation depend on, by the name that an error gives it.

    Args:
        x, y: images and labels.
        columns: the attacks.
        artifacts: name -> opened artifact or twin.
        labels: name -> what it predicts without attack, `(n,)`.
        settings: name -> number.
    """
    # Here, because the package imports this module.
    import keras_robust

    return {
        "x": array_hash(x),
        "y": array_hash(np.asarray(y, np.int64)),
        **{f"attacks[{c.name!r}]": describe(c.attack) for c in columns},
        "the order of attacks": describe([c.name for c in columns]),
        **{f"artifacts[{n!r}]": artifact_hash(a, labels[n]) for n, a in artifacts.items()},
        **{name: repr(value) for name, value in settings.items()},
        "the version of keras_robust": keras_robust.__version__,
        "the version of TensorFlow": tf.__version__,
    }


def artifact_hash(artifact, clean) -> str:
    """Of a file's bytes, or of a model's weights; of nothing but the answers where only they show.

    Args:
        artifact: opened.
        clean: the labels that it gives to all images, `(n,)`.
    """
    answers = array_hash(np.asarray(clean, np.int64))
    if artifact.kind in ("saved_model", "tflite", "packed"):
        return _hash(answers.encode(), _path_hash(Path(artifact.origin)).encode())
    address = artifact.origin if artifact.kind == "endpoint" else ""
    return _hash(answers.encode(), _weights_hash(artifact.origin).encode(), address.encode())


def describe(value) -> str:
    """`repr`, but the same in every process, and whole for arrays and models."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        inside = ", ".join(f"{name}={describe(part)}" for name, part in fields)
        return f"{type(value).__name__}({inside})"
    if isinstance(value, (np.ndarray, tf.Tensor, tf.Variable)):
        return f"array {array_hash(np.asarray(value))}"
    if is_model(value):
        return f"model {_weights_hash(value)}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(describe, value))}]"
    if isinstance(value, collections.abc.Mapping):
        return f"{{{', '.join(f'{k!r}: {describe(v)}' for k, v in value.items())}}}"
    return _ADDRESS.sub("", repr(value))


def _weights_hash(model) -> str:
    variables = getattr(model, "variables", None) or ()
    return _hash(*(array_hash(np.asarray(v)).encode() for v in variables))


def _path_hash(path) -> str:
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    names = (p.relative_to(path).as_posix().encode() for p in files)
    return _hash(*(part for n, p in zip(names, files, strict=True) for part in (n, p.read_bytes())))


def _hash(*parts: bytes) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little") + part)
    return total.hexdigest()[:16]
