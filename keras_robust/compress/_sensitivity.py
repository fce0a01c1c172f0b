"""Which layers hurt accuracy and robustness when their weights are made small."""

import math
import numbers
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_robust._checks import (
    check_images,
    check_labels,
    check_logit_model,
    check_logits,
    check_same_length,
)
from keras_robust.attacks._attack import call_logits
from keras_robust.compress._graph import check_graph, plain_layers, replace
from keras_robust.compress._inputs import check_one_input

_KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")


@dataclass(frozen=True)
class Sensitivity:
    """What `sensitivity` measured.

    Attributes:
        change: what was done to each layer, in words.
        clean, robust: accuracy of the unchanged model, in [0, 1]; robust is None without attack.
        layers: a dict for each layer, in the model's order: "layer", "weights", "clean" and
            "robust" accuracy with this layer alone changed.
    """

    change: str
    clean: float
    robust: float | None
    layers: list[dict]

    def most_sensitive(self, count: int | None = None, *, loss: float | None = None) -> list[str]:
        """Names of the layers that lose most, the worst first: those to leave as they are.

        Args:
            count: how many; None for all that lose more than `loss`.
            loss: of robust accuracy (of clean, without an attack), in [0, 1].
        """
        if (count is None) == (loss is None):
            raise ValueError(f"Give one of `count` and `loss`, got {count!r} and {loss!r}.")
        if count is not None:
            _whole("count", count, 0, math.inf)
        elif isinstance(loss, bool) or not isinstance(loss, numbers.Real) or not -1 <= loss <= 1:
            raise ValueError(f"`loss` must be a number in [-1, 1], got {loss!r}.")
        key, whole = ("clean", self.clean) if self.robust is None else ("robust", self.robust)
        ordered = sorted(self.layers, key=lambda row: row[key])
        if count is not None:
            return [row["layer"] for row in ordered[:count]]
        return [row["layer"] for row in ordered if whole - row[key] > loss]

    def __str__(self):
        head = f"{'layer':24}{'weights':>10}{'clean %':>9}{'robust %':>10}"
        rows = [{"layer": "(none)", "weights": "", "clean": self.clean, "robust": self.robust}]
        lines = [f"Accuracy with one layer {self.change}", head]
        for row in rows + self.layers:
            weights = row["weights"] if row["weights"] == "" else f"{row['weights']:,}"
            robust = "" if row["robust"] is None else f"{100 * row['robust']:.1f}"
            lines.append(
                f"{row['layer']:24}{weights:>10}{100 * row['clean']:>9.1f}{robust:>10}".rstrip()
            )
        return "\n".join(lines)


def sensitivity(
    model,
    x,
    y,
    attack=None,
    *,
    bits: int | None = None,
    sparsity: float | None = None,
    clusters: int | None = None,
    batch_size: int = 256,
    seed: int = 0,
) -> Sensitivity:
    """Changes the weights of one layer after the other and measures the whole model each time.

    Nothing is trained, so it says which layers are worth leaving alone, not what fine-tuning
    cannot mend. Each changed model is attacked anew, in white-box. `Prune(layers=...)`,
    `Cluster(layers=...)`, `Quantize(float_layers=...)` and `kr.export.tflite(float_layers=...)`
    take what it finds.

    Args:
        model: functional or built sequential model that returns logits, in either Keras; it is
            left as it is.
        x: images `(n, ...)`.
        y: labels `(n,)`, int.
        attack: one with an eps, for robust accuracy, or None for clean accuracy alone.
        bits: round kernels to so many bits, symmetric and by output channel, 2 to 16.
        sparsity: set this share of each kernel's smallest weights to zero, in (0, 1).
        clusters: this many values a kernel, equally spaced from its least to its largest, >= 2.
            Give one of the three.
        batch_size: images at once.
        seed: of the attack.

    Returns:
        A `Sensitivity`; print it.

    Raises:
        TypeError, ValueError: an argument that does not fit, before any work.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="only")])
    >>> x, y = np.random.default_rng(0).uniform(size=(8, 4)).astype("float32"), np.arange(8) % 3
    >>> [row["layer"] for row in sensitivity(model, x, y, bits=4).layers]
    ['only']
    """
    change, words = _change(bits, sparsity, clusters)
    check_logit_model(model)
    check_graph(model)
    _whole("batch_size", batch_size, 1, math.inf)
    if attack is not None and not callable(attack):
        raise TypeError(
            "`attack` must be an attack such as kr.attacks.PGD(eps=0.1), or None for clean "
            f"accuracy alone, got {attack!r}."
        )
    x = check_images(x).numpy()
    check_one_input(x.shape, model)
    classes = check_logits(call_logits(model, x[:2]))
    y = check_labels(y, classes).numpy()
    if y.ndim != 1:
        raise ValueError("`y` must be class numbers (n,) here, not shares of classes.")
    check_same_length(x, y)
    copy = replace(model, lambda layer: None)
    run = tf.function(lambda rows: call_logits(copy, rows), autograph=False, reduce_retracing=True)

    def measured():
        clean = robust = 0
        for start in range(0, len(x), batch_size):
            rows, labels = x[start : start + batch_size], y[start : start + batch_size]
            right = np.argmax(run(rows), axis=-1) == labels
            clean += int(right.sum())
            if attack is not None:
                found = run(attack(copy, rows, labels, seed=seed))
                robust += int((right & (np.argmax(found, axis=-1) == labels)).sum())
        return clean / len(x), None if attack is None else robust / len(x)

    whole, rows = measured(), []
    for layer in plain_layers(copy):
        found = {name: getattr(layer, name) for name in _KERNELS if hasattr(layer, name)}
        found = {name: own for name, own in found.items() if hasattr(own, "assign")}
        if not found:
            continue
        variables, kept = list(found.values()), [np.array(own) for own in found.values()]
        for (name, variable), values in zip(found.items(), kept, strict=True):
            variable.assign(change(values, _channels(layer, name)))
        clean, robust = measured()
        for variable, values in zip(variables, kept, strict=True):
            variable.assign(values)
        count = sum(values.size for values in kept)
        rows.append({"layer": layer.name, "weights": count, "clean": clean, "robust": robust})
    if not rows:
        raise ValueError("`model` has no layer with a kernel, so nothing can be changed.")
    return Sensitivity(words, *whole, rows)


def _change(bits, sparsity, clusters):
    """The function of a kernel that was asked for, and what it is called."""
    given = {"bits": bits, "sparsity": sparsity, "clusters": clusters}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise ValueError(
            f"Give one of `bits`, `sparsity` and `clusters`, got {', '.join(named) or 'none'}."
        )
    if bits is not None:
        _whole("bits", bits, 2, 16)
        return lambda values, channels: rounded(values, bits, channels), f"rounded to {bits} bits"
    if clusters is not None:
        _whole("clusters", clusters, 2, math.inf)
        return lambda values, _: spaced(values, clusters), f"of {clusters} values"
    if isinstance(sparsity, bool) or not isinstance(sparsity, numbers.Real) or not 0 < sparsity < 1:
        raise ValueError(f"`sparsity` must be in (0, 1), got {sparsity!r}.")
    return lambda values, _: thinned(values, sparsity), f"{100 * sparsity:g}% sparse"


def _channels(layer, name: str) -> tuple[int, ...]:
    """The axes of a kernel along which its output channels lie."""
    kind = type(layer).__name__
    if name == "depthwise_kernel" or kind.startswith("Depthwise"):
        return -2, -1
    return (-2,) if kind.endswith("Transpose") else (-1,)


def rounded(values: np.ndarray, bits: int, channels=(-1,)) -> np.ndarray:
    """Symmetric, each output channel, along the axes `channels`, by its own largest weight."""
    most = 2 ** (bits - 1) - 1
    axes = tuple(axis for axis in range(values.ndim) if axis - values.ndim not in channels)
    step = np.abs(values).max(axis=axes, keepdims=True) / most
    step = np.where(step > 0, step, 1.0)
    return np.round(values / step) * step


def thinned(values: np.ndarray, sparsity: float) -> np.ndarray:
    """The smallest weights zero."""
    gone = np.argsort(np.abs(values), axis=None)[: round(sparsity * values.size)]
    thin = values.reshape(-1).copy()
    thin[gone] = 0
    return thin.reshape(values.shape)


def spaced(values: np.ndarray, clusters: int) -> np.ndarray:
    """The nearest of equally spaced values, as `Cluster(init="linear")` starts."""
    values = values.astype(np.float64)  # The step between the smallest float32 would be zero.
    low, high = values.min(), values.max()
    if low == high:
        return values
    step = (high - low) / (clusters - 1)
    return low + np.round((values - low) / step) * step


def _whole(name, value, least, most):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"`{name}` must be a whole number, got {value!r}.")
    if not least <= value <= most:
        raise ValueError(f"`{name}` must be at least {least} and at most {most}, got {value!r}.")
