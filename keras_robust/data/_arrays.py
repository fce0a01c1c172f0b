"""Images and labels in memory: what every source gives, its checks, splits and resizing."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

MAX_BYTES = 4 * 2**30


class Arrays(NamedTuple):
    """A data set in memory: images uint8, or float32 in [0, 1], `(n, h, w, c)`; labels int32."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]


def as_images(x: np.ndarray, what: str) -> np.ndarray:
    """`x` as uint8 or float32 in [0, 1] of shape `(n, h, w, c)`; `what` names it in errors."""
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(
            f"{what} must be images of shape (n, h, w, c), or (n, h, w) when grey, and at least "
            f"one of them; got shape {x.shape}."
        )
    if x.shape[1] in (1, 3) and x.shape[3] > 4:
        raise ValueError(
            f"{what} has shape {x.shape}, which looks channels first. Move the channels last: "
            "numpy.moveaxis(x, 1, -1)."
        )
    if x.dtype == np.uint8:
        return x
    if not np.issubdtype(x.dtype, np.floating):
        raise ValueError(
            f"{what} must be uint8 in [0, 255] or floating point in [0, 1], got dtype {x.dtype}. "
            "Convert it, for instance x.astype('uint8')."
        )
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):  # written so that NaN is caught too
        raise ValueError(
            f"{what} is floating point and must lie in [0, 1], got values in [{low:g}, {high:g}]. "
            "Scale it, for instance x / 255, and remove NaN and infinite values."
        )
    return x.astype(np.float32)


def as_labels(y: np.ndarray, images: np.ndarray, what: str, images_what: str) -> np.ndarray:
    """`y` as int32 `(n,)`, one label >= 0 for each of `images`."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise ValueError(
            f"{what} must be labels of shape (n,), got shape {y.shape}. Turn one-hot rows into "
            "labels with y.argmax(axis=1)."
        )
    if not np.issubdtype(y.dtype, np.integer):
        raise ValueError(
            f"{what} must hold whole class numbers of an integer dtype, got dtype {y.dtype}. "
            "Convert it with y.astype('int32'); names of classes go into `class_names`."
        )
    if len(y) != len(images):
        raise ValueError(
            f"{images_what} and {what} must have the same length, got {len(images)} and {len(y)}."
        )
    if y.min() < 0:
        raise ValueError(f"{what} must be >= 0, got {y.min()}. Number the classes from 0.")
    return y.astype(np.int32)


def pick(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Sorted indices of `count` examples, class shares kept as nearly as whole numbers allow."""
    order = rng.permutation(len(labels))
    # The k-th of n members of a class stands at (k + u) / n: a prefix holds each class in
    # its share, and `u` keeps classes of one size from tying.
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        position[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.sort(np.argsort(position, kind="stable")[:count])


def split(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices (train, test): `fraction` of each class, at least 1, goes to the test."""
    rng = np.random.default_rng(seed)
    test = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) < 2:
            raise ValueError(
                f"class {label} has {len(members)} image, but a split into training and test "
                "images needs at least 2 of each class. Add images or give a test set."
            )
        count = min(max(round(len(members) * fraction), 1), len(members) - 1)
        test.append(members[:count])
    test = np.sort(np.concatenate(test))
    return np.setdiff1d(np.arange(len(labels)), test), test


def check_classes(labels: np.ndarray, class_names, what: str) -> tuple[str, ...]:
    """The class names, "0", "1", .. when None; raises when they do not fit the labels."""
    if labels.min() == labels.max():
        raise ValueError(
            f"{what} holds only one class ({labels[0]}): there is nothing to classify. Give "
            "images of at least 2 classes."
        )
    if class_names is None:
        return tuple(str(i) for i in range(labels.max() + 1))
    if labels.max() >= len(class_names):
        raise ValueError(
            f"{what} has labels up to {labels.max()}, but only {len(class_names)} class names. "
            "Give one name for each class."
        )
    return tuple(str(name) for name in class_names)


def resize(x: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """`x` at `(height, width)`, bilinear, smoothed when it shrinks; dtype and range kept."""
    if size is None or x.shape[1:3] == size:
        return x
    check_bytes(len(x), (*size, x.shape[3]), x.dtype)
    out = np.empty((len(x), *size, x.shape[3]), x.dtype)
    for start in range(0, len(x), 256):
        part = tf.image.resize(x[start : start + 256], size, antialias=True).numpy()
        out[start : start + 256] = np.round(part) if x.dtype == np.uint8 else part.clip(0, 1)
    return out


def check_bytes(count: int, shape: tuple[int, ...], dtype) -> None:
    """Raises when `count` images of `shape` would not reasonably fit in memory."""
    needed = count * int(np.prod(shape)) * np.dtype(dtype).itemsize
    if needed > MAX_BYTES:
        raise ValueError(
            f"{count} images of shape {tuple(shape)} take {needed / 2**30:.1f} GiB in memory, "
            f"more than {MAX_BYTES / 2**30:g} GiB. Give a smaller `image_size` or a `limit`."
        )
