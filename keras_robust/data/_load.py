"""`load`: a data set by name or path as training and test `tf.data`."""

import math
import numbers
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_robust.data._arrays import Arrays, pick, resize
from keras_robust.data._folder import load_folder
from keras_robust.data._npz import load_npz
from keras_robust.data._tfds import load_tfds

EMBEDDED = Path(__file__).with_name("fashion_mnist_subset.npz")


class Data(NamedTuple):
    """Training and test images with the names of their classes.

    Attributes:
        train: `tf.data.Dataset` of float32 images in [0, 1], `(batch, h, w, c)`, and int32
            labels, `(batch,)`; shuffled anew at each iteration, every batch full.
        test: the same in a fixed order; the last batch may be smaller.
        class_names: one name for each class, in the order of the labels.
    """

    train: tf.data.Dataset
    test: tf.data.Dataset
    class_names: tuple[str, ...]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return tuple(self.train.element_spec[0].shape[-3:])

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)


def load(
    name_or_path="embedded",
    *,
    batch_size: int | None = 128,
    seed: int = 0,
    data_dir=None,
    image_size: int | tuple[int, int] | None = None,
    test_fraction: float = 0.2,
    limit: int | None = None,
) -> Data:
    """Training and test images in [0, 1] by name or path.

    Args:
        name_or_path: one of

            - `"embedded"`: 12,000 + 2,000 images of Fashion-MNIST that ship with the package;
            - a folder of images (png, jpg, bmp, gif): one folder a class, or `train/` and
              `test/` (or `val/`) with one folder a class in each;
            - an `.npz` file with x_train, y_train (and x_test, y_test), or x, y, where x is
              uint8, or floating point in [0, 1], and `class_names` is optional;
            - a name of tensorflow-datasets: `"mnist"`, `"cifar10:3.0.2"`,
              `"imagenette/160px-v2"`. It needs `pip install "keras-robust[data]"`.

            A folder or file that exists goes before a name of tensorflow-datasets.
        batch_size: images in a batch; None gives single images.
        seed: of the shuffling, the split and the choice under `limit`. Shuffling also follows
            TensorFlow's own seed where `tf.random.set_seed` was called. Each `iter(train)` is
            the next order of one fixed sequence: a resumed run that first draws as many
            iterators as the lost one had (`fit` draws one an epoch under tf_keras, two under
            Keras 3) sees the images in the same order.
        data_dir: where tensorflow-datasets keeps its data, when not in its default folder.
        image_size: side, or `(height, width)`, in pixels to resize all images to. Needed
            when the images of a source differ in size.
        test_fraction: share of each class for the test, in (0, 1), where there is no test set.
        limit: at most so many training and so many test images, class shares kept.

    Returns:
        `Data(train, test, class_names)`.

    Raises:
        ValueError: nothing of that name or path, or unusable contents.
        ImportError: a name of tensorflow-datasets without that package.

    >>> data = load("embedded", batch_size=64)
    >>> data.input_shape, data.classes, data.class_names[9]
    ((28, 28, 1), 10, 'Ankle boot')
    """
    _check_settings(batch_size, seed, test_fraction, limit)
    size = _check_size(image_size)
    found = _read(name_or_path, seed, data_dir, size, test_fraction, limit)
    found = _limited(found, limit, seed)
    if batch_size is not None and len(found.x_train) < batch_size:
        raise ValueError(
            f"`batch_size`={batch_size} is larger than the {len(found.x_train)} training images, "
            "which would leave no full batch. Give a smaller `batch_size`."
        )
    x_train, x_test = resize(found.x_train, size), resize(found.x_test, size)
    return Data(
        _dataset(x_train, found.y_train, batch_size, seed),
        _dataset(x_test, found.y_test, batch_size, None),
        found.class_names,
    )


def arrays(dataset: tf.data.Dataset, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """All of a data set, or its first `limit` examples, as two numpy arrays.

    Args:
        dataset: of (images, labels), batched or not, as `Data.test`.
        limit: at most so many examples, >= 1.

    Returns:
        Images `(n, h, w, c)` and labels `(n,)`, dtypes as in `dataset`.

    >>> x, y = arrays(load("embedded").test, limit=20)
    >>> x.shape, x.dtype.name, y.shape
    ((20, 28, 28, 1), 'float32', (20,))
    """
    _check_count(limit, "limit")
    spec = getattr(dataset, "element_spec", None)
    if not (isinstance(spec, tuple) and len(spec) == 2):
        raise TypeError(
            f"`dataset` must be a tf.data.Dataset of (images, labels), got {dataset!r}."
        )
    if spec[1].shape.rank == 0:
        dataset = dataset.batch(256)
    images, labels, count = [], [], 0
    for x, y in dataset:
        images.append(x.numpy())
        labels.append(y.numpy())
        count += len(labels[-1])
        if limit is not None and count >= limit:
            break
    if not count:
        raise ValueError("`dataset` is empty.")
    return np.concatenate(images)[:limit], np.concatenate(labels)[:limit]


def _dataset(x, y, batch_size, seed) -> tf.data.Dataset:
    """Of (image, label): shuffled, repeatable by `seed` and without remainder unless it is None."""
    order = tf.data.Dataset.range(len(x))
    if seed is not None:
        # Eight bytes an example are shuffled, not the images.
        order = order.shuffle(len(x), seed=seed, reshuffle_each_iteration=True)
    if batch_size is not None:
        order = order.batch(batch_size, drop_remainder=seed is not None)
    with tf.device("CPU"):
        images, labels = tf.constant(x), tf.constant(y, tf.int32)

    def fetch(index):
        image = tf.cast(tf.gather(images, index), tf.float32)
        return (image / 255.0 if images.dtype == tf.uint8 else image), tf.gather(labels, index)

    return order.map(fetch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _read(name_or_path, seed, data_dir, size, test_fraction, limit) -> Arrays:
    if not isinstance(name_or_path, str | os.PathLike) or not str(name_or_path).strip():
        raise TypeError(
            '`name_or_path` must be "embedded", a path or a name of tensorflow-datasets, got '
            f"{name_or_path!r}."
        )
    if name_or_path == "embedded":
        return load_npz(EMBEDDED, seed, test_fraction)
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return load_folder(path, seed, size, test_fraction, limit)
    if path.is_file():
        if path.suffix.lower() != ".npz":
            raise ValueError(
                f"`name_or_path` is the file {path}, which is no .npz. Give a folder with one "
                "folder of images for each class, or an .npz file."
            )
        return load_npz(path, seed, test_fraction)
    if _looks_like_path(name_or_path, path):
        raise ValueError(
            f"`name_or_path`={str(name_or_path)!r}: there is no such file or folder "
            f"(looked for {path.absolute()})."
        )
    return load_tfds(name_or_path, seed, data_dir, size, test_fraction, limit)


def _looks_like_path(name_or_path, path: Path) -> bool:
    return (
        isinstance(name_or_path, os.PathLike)
        or path.is_absolute()
        or name_or_path.startswith((".", "~"))
        or name_or_path.endswith(("/", os.sep))
        or path.suffix.lower() == ".npz"
    )


def _limited(found: Arrays, limit: int | None, seed: int) -> Arrays:
    if limit is None:
        return found
    rng = np.random.default_rng(seed)
    train, test = pick(found.y_train, limit, rng), pick(found.y_test, limit, rng)
    return Arrays(
        *(found.x_train[train], found.y_train[train], found.x_test[test], found.y_test[test]),
        found.class_names,
    )


def _check_settings(batch_size, seed, test_fraction, limit) -> None:
    _check_count(batch_size, "batch_size")
    _check_count(limit, "limit")
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0:
        raise ValueError(f"`seed` must be a whole number >= 0, got {seed!r}.")
    is_number = isinstance(test_fraction, numbers.Real) and math.isfinite(test_fraction)
    if not is_number or not 0 < test_fraction < 1:
        raise ValueError(f"`test_fraction` must be in (0, 1), got {test_fraction!r}.")


def _check_count(value, argument: str) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"`{argument}` must be None or a whole number >= 1, got {value!r}.")


def _check_size(image_size) -> tuple[int, int] | None:
    if image_size is None:
        return None
    sides = image_size if isinstance(image_size, tuple | list) else (image_size, image_size)
    whole = all(isinstance(s, numbers.Integral) and not isinstance(s, bool) for s in sides)
    if len(sides) != 2 or not whole or min(sides) < 1:
        raise ValueError(
            "`image_size` must be a side or (height, width) in whole pixels >= 1, got "
            f"{image_size!r}."
        )
    return int(sides[0]), int(sides[1])
