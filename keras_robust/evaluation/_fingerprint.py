"""Hashes of what the results of an evaluation depend on."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_robust._identity import array_hash, describe, hash_of, weights_hash


def data_hash(x, y) -> str:
    """The same for the same images and labels in the same order: which outcomes can be paired."""
    return hash_of(array_hash(x).encode(), array_hash(np.asarray(y, np.int64)).encode())


def fingerprint(x, y, columns, artifacts, labels, settings) -> dict[str, str]:
    """All that the results of an evaluation depend on, by the name that an error gives it.

    Args:
        x, y: images and labels.
        columns: the attacks.
        artifacts: name -> opened artifact or twin.
        labels: name -> what it predicts without attack, `(n,)`.
        settings: name -> value.
    """
    # Here, because the package imports this module.
    import keras_robust

    return {
        "x": array_hash(x),
        "y": array_hash(np.asarray(y, np.int64)),
        **{f"attacks[{c.name!r}]": describe([c.attack, c.eps, c.norm]) for c in columns},
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
        return hash_of(answers.encode(), _path_hash(Path(artifact.origin)).encode())
    address = artifact.origin if artifact.kind == "endpoint" else ""
    return hash_of(answers.encode(), weights_hash(artifact.origin).encode(), address.encode())


def _path_hash(path) -> str:
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    names = (p.relative_to(path).as_posix().encode() for p in files)
    return hash_of(
        *(part for n, p in zip(names, files, strict=True) for part in (n, p.read_bytes()))
    )
