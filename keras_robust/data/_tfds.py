"""Data sets of tensorflow-datasets by name."""

import difflib
import socket
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np

from keras_robust.data._arrays import Arrays, as_labels, check_bytes, check_classes, resize, split

EXTRA = 'pip install "keras-robust[data]"'
SOURCES = '"embedded", a folder of images by class, an .npz file or a name of tensorflow-datasets'


def load_tfds(
    name: str, seed: int, data_dir, size: tuple[int, int] | None, test_fraction: float, limit
) -> Arrays:
    """The images of the data set `name`, downloaded and prepared when `data_dir` lacks it."""
    tfds = _import(name)
    builder = _builder(tfds, name, data_dir)
    _prepare(builder, name)
    splits = builder.info.splits
    if "train" not in splits:
        raise ValueError(f"{name!r} has no split `train`, only {', '.join(sorted(splits))}.")
    kind = next((k for k in ("test", "validation", "val") if k in splits), None)
    keys = _check_features(tfds, builder, name)
    train = _read(builder, "train", keys, size, None if kind is None else limit, name)
    if kind is None:
        a, b = split(train[1], test_fraction, seed)
        train, test = (train[0][a], train[1][a]), (train[0][b], train[1][b])
    else:
        test = _read(builder, kind, keys, size, limit, name)
    names = tuple(builder.info.features[keys[1]].names or ()) or None
    names = check_classes(np.concatenate([train[1], test[1]]), names, repr(name))
    return Arrays(*train, *test, names)


def _import(name: str):
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f'`name_or_path`={name!r} is not "embedded", nor a folder or file that exists. As a '
            f"name of tensorflow-datasets it needs that package: {EXTRA} (import failed: {error})."
        ) from error
    return tfds


def _builder(tfds, name: str, data_dir):
    if data_dir is not None:
        data_dir = Path(data_dir).expanduser()
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        base = name.partition(":")[0].partition("/")[0]
        known = tfds.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(base, ["embedded", *known], n=3)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise ValueError(
            f"`name_or_path`={name!r} is unknown.{hint} It must be {SOURCES}; nothing of this "
            f"name lies in {data_dir or 'the default data_dir'} either."
        ) from error
    except Exception as error:  # a config, a version or a dependency that is not there
        raise ValueError(
            f"`name_or_path`={name!r}: tensorflow-datasets refuses it: {_short(error)}"
        ) from error


def _prepare(builder, name: str) -> None:
    if builder.data_path.exists():
        return
    try:
        _check_network(builder)
        builder.download_and_prepare()
    except Exception as error:  # whatever sites, archives and checksums come up with
        folder = _root(builder)
        raise ValueError(
            f"the data set {name!r} could not be downloaded and prepared: "
            f"{type(error).__name__}: {_short(error)} Ways out: give `data_dir` a folder "
            f"where it lies prepared ({folder} has no {builder.info.full_name}); or put its "
            f"original files into {folder / 'downloads' / 'manual'} and call again; or save the "
            "images as an .npz file (x_train, y_train, x_test, y_test) and give its path."
        ) from error


def _check_network(builder) -> None:
    """Fails at once where tensorflow-datasets would retry for minutes: no host has an address."""
    hosts = {urllib.parse.urlsplit(url).hostname for url in builder.url_infos} - {None}
    downloads = _root(builder) / "downloads"
    # Files of an interrupted download are called *.tmp.*; anything else may be all it needs.
    cached = any(p.is_file() and ".tmp." not in p.name for p in downloads.glob("**/*"))
    if not hosts or cached or urllib.request.getproxies():
        return
    for host in sorted(hosts):
        try:
            socket.getaddrinfo(host, 443)
            return
        except OSError as error:
            reason = error
    raise ConnectionError(f"no network to {', '.join(sorted(hosts))} ({reason}).")


def _check_features(tfds, builder, name: str) -> tuple[str, str]:
    """The keys of the image and of the label; raises when it is no image classification set."""
    keys, features = builder.info.supervised_keys, builder.info.features
    if keys is None and {"image", "label"} <= set(features or ()):
        keys = ("image", "label")  # sets written by store_as_tfds_dataset declare no keys
    if keys is None or len(keys) != 2 or not all(isinstance(key, str) for key in keys):
        raise ValueError(f"{name!r} has no pair of image and label (supervised_keys={keys}).")
    image, label = features[keys[0]], features[keys[1]]
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        raise ValueError(f"{name!r} must have uint8 images as inputs, got {image!r}.")
    if not isinstance(label, tfds.features.ClassLabel):
        raise ValueError(f"{name!r} must have class labels as targets, got {label!r}.")
    return keys


def _read(builder, kind: str, keys, size, limit, name: str) -> tuple[np.ndarray, np.ndarray]:
    # Prepared files are in random order already, so the first ones are a fair sample.
    count = builder.info.splits[kind].num_examples
    wanted = count if limit is None else min(limit, count)
    dataset = builder.as_dataset(split=f"{kind}[:{wanted}]")
    dataset = dataset.map(lambda example: tuple(example[key] for key in keys))
    images, labels = [], []
    for image, label in dataset.as_numpy_iterator():
        if size is not None:
            image = resize(image[None], size)[0]
        if not images:
            check_bytes(wanted, image.shape, np.uint8)
        elif image.shape != images[0].shape:
            raise ValueError(
                f"images of {name!r} differ in size: {images[0].shape} and {image.shape}. Give "
                "`image_size`, to which all are resized."
            )
        images.append(image)
        labels.append(label)
    if not images:
        raise ValueError(f"the split `{kind}` of {name!r} is empty.")
    images, what = np.stack(images), f"the split `{kind}` of {name!r}"
    return images, as_labels(np.array(labels), images, f"labels of {what}", f"images of {what}")


def _root(builder) -> Path:
    """The folder under which tensorflow-datasets keeps <name>/<version> and downloads/."""
    return Path(builder.data_path.parents[builder.info.full_name.count("/")])


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return (text if len(text) <= 300 else f"{text[:300]} ...").rstrip(".") + "."
