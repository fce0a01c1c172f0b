"""Where the bytes of a model go, layer by layer."""

import os
import pathlib
from dataclasses import dataclass

import numpy as np

from keras_robust._files import content_sizes
from keras_robust._keras import check_model, is_model
from keras_robust.compress.packed import _file
from keras_robust.compress.packed._stages import entropy, stages

_SUMMED = ("parameters", "dense", "sparse", "codebook", "huffman", "gzip", "entropy", "packed")


@dataclass(frozen=True)
class SizeReport:
    """What `size_report` counted.

    Attributes:
        weights: one dict a weight: layer, weight, parameters, sparsity (share of zeros),
            distinct (values), bits (entropy of a value), and bytes: dense, sparse, codebook,
            huffman, entropy, gzip, packed; ratio is the size in float32 to packed.
        total: the same sums over all weights, "architecture" (bytes of all else in the file),
            "file" and its "ratio".
    """

    weights: list[dict]
    total: dict

    def to_dict(self) -> dict:
        """Everything, ready for JSON."""
        return {"weights": [dict(row) for row in self.weights], "total": dict(self.total)}

    def layers(self) -> list[dict]:
        """The rows of `weights` summed up by layer."""
        names = list(dict.fromkeys(row["layer"] for row in self.weights))
        return [
            {"layer": name, **_sum([row for row in self.weights if row["layer"] == name])}
            for name in names
        ]

    def __str__(self) -> str:
        head = ["layer", "weight", "weights", "zeros", "values", "bits", "float32"]
        head += ["sparse", "codebook", "Huffman", "gzip", "entropy", "packed", "ratio"]
        lines = [_line(row["layer"], row["weight"], row) for row in self.weights]
        lines.append(_line("all weights", "", self.total))
        total = self.total
        for name, size in (("all else", total["architecture"]), ("file", total["file"])):
            ratio = f"{total['ratio']:.1f}x" if name == "file" else ""
            lines.append([name, *[""] * 11, f"{size:,}", ratio])
        widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if place < 2 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in [head, *lines]
        )


def size_report(model_or_path) -> SizeReport:
    """Counts, weight by weight, what a model takes packed and in other forms.

    Deep Compression's stages (Han, Mao and Dally 2015, https://arxiv.org/abs/1510.00149) stand
    beside: gaps of 5 bits and weights ("sparse"), gaps and indices ("codebook"), and both in
    Huffman's code ("huffman"). "entropy" is the limit for any code that takes each weight on its
    own; `pack` may go below, as it looks at a weight's neighbours.

    Args:
        model_or_path: a model as `pack` takes it, which is then coded in memory, or the path of
            a file that it wrote.

    Returns:
        A `SizeReport`; print it, or take its `to_dict()`.

    Raises:
        TypeError, ValueError: as by `pack` and `unpack`.

    >>> model = keras.Sequential([keras.Input((9,)), keras.layers.Dense(3, name="d")])
    >>> size_report(model).total["dense"]
    120
    """
    if isinstance(model_or_path, str | os.PathLike):
        path = pathlib.Path(model_or_path)
        model = _file.unpack(path)
        _, stored = _file.read(path)
        values, sizes = _file.decode(stored), [each.size for each in stored]
        whole = path.stat().st_size
        # The Keras that runs may order a layer's weights as the one that packed; names are its.
        places = [(layer, name) for layer, name, _ in _file.named(model)]
    elif not is_model(model_or_path):
        check_model(model_or_path, "model_or_path")
        raise TypeError(
            "`model_or_path` must be a Keras model, or the path of a file of kr.compress.pack, got "
            f"{model_or_path!r}."
        )
    else:
        parts, weights = _file.assemble(model_or_path)
        values = [value for _, _, value in weights]
        sizes = [len(part) for part in parts[1:-1]]
        whole = sum(map(len, parts))
        places = [(layer, name) for layer, name, _ in weights]
    rows = [
        _row(layer, name, value, size)
        for (layer, name), value, size in zip(places, values, sizes, strict=True)
    ]
    total = _sum(rows)
    total |= {"architecture": whole - sum(sizes), "file": whole}
    total["ratio"] = 4 * total["parameters"] / whole
    return SizeReport(rows, total)


def _row(layer, name, value, size) -> dict:
    return {
        "layer": layer,
        "weight": name,
        "parameters": int(value.size),
        "sparsity": float(np.mean(value == 0)) if value.size else 0.0,
        "distinct": int(np.unique(value).size),
        "bits": entropy(value),
        **stages(value),
        "gzip": content_sizes(value.tobytes())[1],
        "packed": size,
        "ratio": 4 * value.size / size,
    }


def _sum(rows) -> dict:
    total = {key: sum(row[key] for row in rows) for key in _SUMMED}
    count = max(1, total["parameters"])
    total["sparsity"] = sum(row["sparsity"] * row["parameters"] for row in rows) / count
    total["distinct"] = max((row["distinct"] for row in rows), default=0)
    total["bits"] = sum(row["bits"] * row["parameters"] for row in rows) / count
    total["ratio"] = 4 * total["parameters"] / max(1, total["packed"])
    return total


def _line(layer, weight, row) -> list[str]:
    sizes = ("dense", "sparse", "codebook", "huffman", "gzip", "entropy", "packed")
    return [
        layer,
        weight,
        f"{row['parameters']:,}",
        f"{row['sparsity']:.3f}",
        f"{row['distinct']:,}",
        f"{row['bits']:.2f}",
        *[f"{row[name]:,}" for name in sizes],
        f"{row['ratio']:.1f}x",
    ]
