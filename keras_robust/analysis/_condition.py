"""The condition number of each kernel of a model."""

import collections
import dataclasses
import math

import numpy as np
import tensorflow as tf

from keras_robust._calls import calls_of, key_of
from keras_robust._keras import LEGACY, check_model, is_model, keras


@dataclasses.dataclass(frozen=True)
class ConditionNumbers:
    """The extreme singular values of each kernel; print it for a table.

    Attributes:
        rows: one dict a kernel: layer, kind, layers (names, several for a product), shape (of the
            matrix), rank (its largest possible one), largest and smallest (singular values),
            condition (their ratio, infinite where the smallest is rounding), stable_rank (sum of
            the squared singular values by the largest one's square: how many directions matter).
    """

    rows: list[dict]

    @property
    def worst(self) -> float:
        """The largest condition number."""
        return max(row["condition"] for row in self.rows)

    def __getitem__(self, layer: str) -> float:
        """The condition number of the layer of that name."""
        for row in self.rows:
            if row["layer"] == layer:
                return row["condition"]
        raise KeyError(f"No kernel of {layer!r}; there are {[row['layer'] for row in self.rows]}.")

    def to_dict(self) -> dict:
        """Everything, ready for JSON; an infinite condition number is None."""
        return {
            "rows": [
                {**row, "condition": row["condition"] if math.isfinite(row["condition"]) else None}
                for row in self.rows
            ]
        }

    def __str__(self) -> str:
        lines = [["layer", "kind", "matrix", "rank", "largest", "smallest", "condition", "stable"]]
        for row in self.rows:
            numbers = (row[name] for name in ("largest", "smallest", "condition", "stable_rank"))
            shape = " x ".join(map(str, row["shape"]))
            cells = [row["layer"], row["kind"], shape, str(row["rank"])]
            lines.append(cells + [f"{number:.4g}" for number in numbers])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if place < 3 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )


def condition_numbers(model) -> ConditionNumbers:
    """The condition number of each Dense and Conv2D kernel, as a matrix.

    A convolution counts as its matrix of k k I x O. Where linear layers without a bias lead into
    a Dense or 1x1 Conv2D only, as `kr.compress.Factorize` makes them, the product of them all
    is meant, with as many singular values as its rank; so it is for `LowRankDense` and
    `LowRankConv2D`. Perturbations of an input can grow by the largest singular value relative to
    others that shrink by the smallest: networks of low rank with large condition numbers lose
    adversarial robustness (https://arxiv.org/abs/2306.01485).

    Args:
        model: functional or built sequential Keras model; models inside it are opened.

    Returns:
        `ConditionNumbers`, in the order of the calls.

    Raises:
        TypeError: not a Keras model, or one of the other Keras.
        ValueError: a model without a graph, or without such a kernel.

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="d")])
    >>> model.layers[0].kernel.assign([[3.0, 0.0], [0.0, 1.0]]) is not None
    True
    >>> condition_numbers(model)["d"]
    3.0
    """
    check_model(model)
    if not is_model(model):
        raise TypeError(f"`model` must be a Keras model, got {type(model).__name__}.")
    found, pairs = {}, {}
    _collect(model, found, pairs)
    firsts = {id(first) for first in pairs.values()}
    rows = [_row(_chain(layer, pairs)) for key, layer in found.items() if key not in firsts]
    if not rows:
        raise ValueError(f"`model` {model.name!r} has no Dense or Conv2D kernel.")
    return ConditionNumbers(rows)


def _collect(model, found: dict, pairs: dict) -> None:
    """Layers with kernels by id, and the linear layer that leads into each, where one does."""
    graph = model if LEGACY else getattr(model, "_functional", None) or model
    if not getattr(graph, "_nodes_by_depth", None):
        raise ValueError(
            f"Model {model.name!r} has no graph of layers: it is subclassed or not built. Build it "
            "with the functional API, or as a Sequential that starts with an Input."
        )
    made, uses, times = {}, {}, collections.Counter()
    for layer, args, kwargs, outputs in calls_of(graph):
        times[id(layer)] += 1
        if isinstance(layer, keras.Model):
            _collect(layer, found, pairs)
        elif _parts(layer):
            found[id(layer)] = layer
        for key in _keys((args, kwargs)):
            uses.setdefault(made.get(key), []).append(layer)
        made |= dict.fromkeys(_keys(outputs), id(layer))
    for key, users in uses.items():
        first, once = found.get(key), times[key] == len(users) == times[id(users[0])] == 1
        if first is not None and once and _linear(first) and _pointwise(users[0]):
            pairs[id(users[0])] = first


def _chain(layer, pairs) -> list:
    """The layers whose product counts, `layer` the last of them."""
    chain = [layer]
    while id(chain[0]) in pairs:
        chain.insert(0, pairs[id(chain[0])])
    return chain


def _keys(value) -> list[tuple]:
    leaves = tf.nest.flatten(value)
    return [key_of(leaf) for leaf in leaves if getattr(leaf, "_keras_history", None) is not None]


def _parts(layer) -> list[np.ndarray]:
    """The matrices whose product is the kernel of a layer; none for other layers."""
    if type(layer).__name__ in ("LowRankDense", "LowRankConv2D"):
        kernels = [layer.kernel_in, layer.kernel_out]
    elif isinstance(layer, (keras.layers.Dense, keras.layers.Conv2D)) and not isinstance(
        layer, (keras.layers.Conv2DTranspose, keras.layers.DepthwiseConv2D)
    ):
        kernels = [getattr(layer, "kernel", None)]
    else:
        kernels = []
    if getattr(layer, "groups", 1) != 1 or any(kernel is None for kernel in kernels):
        return []
    kernels = [np.asarray(kernel, "float64") for kernel in kernels]
    return [kernel.reshape(-1, kernel.shape[-1]) for kernel in kernels]


def _linear(layer) -> bool:
    activation = getattr(layer.activation, "__name__", None)
    return activation in (None, "linear") and not layer.use_bias


def _pointwise(layer) -> bool:
    """Whether the kernel of a layer multiplies what it is given as a matrix."""
    if isinstance(layer, keras.layers.Dense):
        return True
    return (
        isinstance(layer, keras.layers.Conv2D)
        and bool(_parts(layer))
        and set(layer.kernel_size) == {1}
    )


def _row(chain) -> dict:
    parts, layer = [part for each in chain for part in _parts(each)], chain[-1]
    matrix = parts[0]
    for part in parts[1:]:
        matrix = matrix @ part
    rank = min(side for part in parts for side in part.shape)
    values = np.linalg.svd(matrix, compute_uv=False)[:rank]
    largest, smallest = float(values[0]), float(values[-1])
    # float32 weights: what is below is rounding.
    rounding = largest * max(matrix.shape) * float(np.finfo("float32").eps)
    return {
        "layer": layer.name,
        "kind": " of rank ".join([type(layer).__name__] + [str(rank)] * (len(parts) > 1)),
        "layers": [each.name for each in chain],
        "shape": list(matrix.shape),
        "rank": rank,
        "largest": largest,
        "smallest": smallest,
        "condition": largest / smallest if smallest > rounding else math.inf,
        "stable_rank": float(np.sum(values**2) / values[0] ** 2) if largest else 0.0,
    }
