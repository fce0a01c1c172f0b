"""Images from a folder with one folder for each class."""

from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_robust.data._arrays import Arrays, check_bytes, check_classes, pick, resize, split

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
LAYOUT = (
    "One folder a class is needed, with png, jpg, bmp or gif images in it: <folder>/<class>/*.png, "
    "or <folder>/train/<class>/*.png and <folder>/test/<class>/*.png."
)


def load_folder(
    path: Path, seed: int, size: tuple[int, int] | None, test_fraction: float, limit: int | None
) -> Arrays:
    """The images of `path`; without test/ or val/ a seeded, stratified split makes a test set."""
    folders = _folders(path)
    # A class may be called "train" too: a folder of splits holds folders.
    if "train" in folders and _folders(folders["train"]):
        names, train, y_train = _list(folders["train"], None)
        kind = next((k for k in ("test", "val", "validation") if k in folders), None)
        test = None if kind is None else _list(folders[kind], names)[1:]
    else:
        names, train, y_train = _list(path, None)
        test = None
    check_classes(y_train, names, str(path))
    train = np.array(train, object), y_train
    if test is None:
        parts = split(y_train, test_fraction, seed)
        train, test = [[column[i] for column in train] for i in parts]
    else:
        test = np.array(test[0], object), test[1]
    if limit is not None:  # before the decoding, which takes the time
        rng = np.random.default_rng(seed)
        chosen = [pick(part[1], limit, rng) for part in (train, test)]
        train, test = [[c[i] for c in part] for part, i in zip((train, test), chosen, strict=True)]
    images = _decode_all([*train[0], *test[0]], size)
    count = len(train[0])
    return Arrays(images[:count], train[1], images[count:], test[1], names)


def _folders(path: Path) -> dict[str, Path]:
    return {p.name: p for p in sorted(path.iterdir()) if p.is_dir() and not p.name.startswith(".")}


def _list(path: Path, names: tuple[str, ...] | None):
    """Class names, paths and int32 labels of one folder of class folders."""
    folders = _folders(path)
    if not folders:
        raise ValueError(f"{path} has no class folders. {LAYOUT}")
    unknown = sorted(folders.keys() - set(names or folders))
    if unknown:
        raise ValueError(
            f"{path} has classes that the training images lack: {', '.join(unknown)}. Both must "
            "use the same folder names."
        )
    names = names or tuple(folders)
    paths, labels = [], []
    for name, folder in folders.items():
        found = sorted(p for p in folder.rglob("*") if _is_image(p))
        if not found:
            raise ValueError(f"{folder} has no images. {LAYOUT}")
        paths += found
        labels += [names.index(name)] * len(found)
    return names, paths, np.array(labels, np.int32)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _decode_all(paths: list[Path], size: tuple[int, int] | None) -> np.ndarray:
    """Uint8 `(n, h, w, c)`: one channel when all are grey, else three; transparency dropped."""
    first = _decode(paths[0], size)
    check_bytes(len(paths), (*first.shape[:2], 3), np.uint8)
    images = []
    with ThreadPoolExecutor(8) as pool:
        todo = iter(paths)
        # In portions, so that an error does not wait for all the rest.
        while portion := list(islice(todo, 256)):
            for path, image in zip(
                portion, pool.map(lambda p: _decode(p, size), portion), strict=True
            ):
                if image.shape[:2] != first.shape[:2]:
                    raise ValueError(
                        f"images differ in size: {paths[0]} is {_hw(first)} and {path} is "
                        f"{_hw(image)} (height x width, in pixels). Give `image_size`, to which "
                        "all are resized."
                    )
                images.append(image)
    channels = 1 if all(image.shape[2] == 1 for image in images) else 3
    out = np.empty((len(images), *first.shape[:2], channels), np.uint8)
    for i, image in enumerate(images):
        out[i] = image  # a grey image spreads over three channels
    return out


def _decode(path: Path, size: tuple[int, int] | None) -> np.ndarray:
    try:
        image = tf.io.decode_image(path.read_bytes(), expand_animations=False).numpy()
    except (tf.errors.OpError, OSError) as error:
        reason = str(getattr(error, "message", error)).splitlines()[0]
        raise ValueError(
            f"the image {path} could not be read: {reason}. Repair or remove the file."
        ) from error
    if image.ndim != 3 or image.shape[2] not in (1, 2, 3, 4):
        raise ValueError(f"the image {path} decodes to shape {image.shape}, not to one picture.")
    image = image[..., :1] if image.shape[2] < 3 else image[..., :3]
    return resize(image[None], size)[0]


def _hw(image: np.ndarray) -> str:
    return f"{image.shape[0]}x{image.shape[1]}"
