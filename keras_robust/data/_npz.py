"""Images and labels from one .npz file."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from keras_robust.data._arrays import Arrays, as_images, as_labels, check_classes, split

KEYS = "x_train, y_train (and x_test, y_test), or x, y; class_names may be added"


def load_npz(path: Path, seed: int, test_fraction: float) -> Arrays:
    """The arrays of `path`; without a test set a seeded, stratified split makes one."""
    found = _read(path)
    pairs = [("x_train", "y_train"), ("x_test", "y_test")]
    if not found.keys() & {"x_train", "y_train"}:
        pairs = [("x", "y")]
    elif not found.keys() & {"x_test", "y_test"}:
        pairs = pairs[:1]
    for key in (key for pair in pairs for key in pair):
        if key not in found:
            raise ValueError(
                f"{path} has no array `{key}`; it holds {sorted(found) or 'nothing'}. "
                f"Save it with {KEYS}."
            )
    images, labels = [], []
    for x, y in pairs:
        images.append(as_images(found[x], f"`{x}` of {path}"))
        labels.append(as_labels(found[y], images[-1], f"`{y}` of {path}", f"`{x}`"))
    if len(pairs) == 2 and images[0].shape[1:] != images[1].shape[1:]:
        raise ValueError(
            f"`x_train` and `x_test` of {path} must hold images of one shape, got "
            f"{images[0].shape[1:]} and {images[1].shape[1:]}."
        )
    names = _names(found.get("class_names"), path)
    check_classes(labels[0], names, f"`{pairs[0][1]}` of {path}")
    names = check_classes(np.concatenate(labels), names, f"{path}")
    if len(pairs) == 1:
        parts = split(labels[0], test_fraction, seed)
        images, labels = [images[0][i] for i in parts], [labels[0][i] for i in parts]
    return Arrays(images[0], labels[0], images[1], labels[1], names)


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise ValueError("it is a single array (.npy)")
        with archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} could not be read as an .npz file: {error}. It may be damaged, or hold "
            f"Python objects, which are never unpickled. Save it anew with {KEYS}."
        ) from error


def _names(names: np.ndarray | None, path: Path) -> list[str] | None:
    if names is None:
        return None
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise ValueError(
            f"`class_names` of {path} must be an array of strings of shape (classes,), got dtype "
            f"{names.dtype} and shape {names.shape}."
        )
    return [n.decode() if isinstance(n, bytes) else str(n) for n in names.tolist()]
