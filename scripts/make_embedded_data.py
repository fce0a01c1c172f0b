"""Makes the embedded default data: a class-balanced subset of Fashion-MNIST, byte for byte.

    python scripts/make_embedded_data.py path/to/fashion_mnist.npz

Reads x_train, y_train, x_test, y_test (uint8) and writes
keras_robust/data/fashion_mnist_subset.npz: 12,000 training and 2,000 test images, as many
of each class, in an order in which every ten images hold every class once.
"""

import argparse
import io
import os
import zipfile
from pathlib import Path

import numpy as np

TARGET = Path(__file__).parents[1] / "keras_robust" / "data" / "fashion_mnist_subset.npz"
NAMES = [
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
]


def balanced_order(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of `count` examples; each run of one per class is in a new random order."""
    classes = int(labels.max()) + 1
    if count % classes:
        raise ValueError(f"`count` must be a multiple of {classes}, got {count}.")
    columns = []
    for label in range(classes):
        members = np.flatnonzero(labels == label)
        if len(members) < count // classes:
            raise ValueError(
                f"class {label} has {len(members)} images, {count // classes} are needed."
            )
        columns.append(rng.permutation(members)[: count // classes])
    return rng.permuted(np.stack(columns, axis=1), axis=1).reshape(-1)


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """An .npz as `np.savez_compressed` writes it, without the time of writing."""
    beside = path.with_suffix(".tmp")
    with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # the same on every operating system
            entry.external_attr = 0o644 << 16
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(entry, buffer.getvalue(), compresslevel=9)
    os.replace(beside, path)


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="the full Fashion-MNIST as an .npz")
    parser.add_argument("--target", type=Path, default=TARGET)
    parser.add_argument("--train", type=int, default=12_000, help="training images")
    parser.add_argument("--test", type=int, default=2_000, help="test images")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    rng = np.random.default_rng(options.seed)
    arrays = {}
    with np.load(options.source, allow_pickle=False) as source:
        for split, count in (("train", options.train), ("test", options.test)):
            images, labels = source[f"x_{split}"], source[f"y_{split}"]
            order = balanced_order(labels, count, rng)
            arrays[f"x_{split}"] = images[order].astype(np.uint8)
            arrays[f"y_{split}"] = labels[order].astype(np.uint8)
    write_npz(options.target, arrays | {"class_names": np.array(NAMES)})
    print(f"{options.target}: {options.target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
