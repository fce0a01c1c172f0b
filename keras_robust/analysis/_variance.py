"""How many dimensions the activations of a layer really fill."""

import collections.abc
import dataclasses
import functools
import math

import numpy as np

from keras_robust.analysis._activations import check_batch_size, reader

# An eigenvalue problem of this side takes 2 GiB and minutes.
LARGEST = 16_384
# Rows held while the others pass by, in bytes, where there are more features than inputs.
_PANEL_BYTES = 2**28


@dataclasses.dataclass(frozen=True, eq=False)
class VarianceRatio:
    """The spectrum of centred activations.

    Attributes:
        singular_values: `(min(inputs, features),)` float64 of the centred matrix `(inputs,
            features)`, largest first.
        inputs: number of rows.
        features: number of columns.
    """

    singular_values: np.ndarray
    inputs: int
    features: int

    @functools.cached_property
    def curve(self) -> np.ndarray:
        """`(min(inputs, features),)`: the share of variance in the first 1, 2, ... values."""
        energy = np.square(self.singular_values)
        total = energy.sum()
        return np.cumsum(energy) / total if total > 0 else np.ones_like(energy)

    def at(self, k: int) -> float:
        """The share of the variance in the first `k` singular values, in [0, 1]."""
        if not 1 <= k:
            raise ValueError(f"`k` must be a whole number >= 1, got {k!r}.")
        return float(self.curve[min(k, len(self.curve)) - 1])

    def rank_for(self, share: float = 0.99) -> int:
        """The smallest number of singular values that hold this share of the variance.

        Args:
            share: in (0, 1].
        """
        if not 0 < share <= 1:
            raise ValueError(f"`share` must be in (0, 1], got {share!r}.")
        if not self.singular_values.any():
            return 0
        # What float64 cannot tell from one counts as reached.
        return int(np.argmax(self.curve >= share - 1e-12)) + 1

    @property
    def effective_rank(self) -> float:
        """Exp of the entropy of the singular values' shares of their sum.

        Roy and Vetterli 2007, "The effective rank": `k` for `k` equal values, 0 without any.
        """
        total = self.singular_values.sum()
        if total == 0:
            return 0.0
        share = self.singular_values[self.singular_values > 0] / total
        return math.exp(-float(np.sum(share * np.log(share))))

    def plot(self, path, title: str = "Variance in the first singular values", largest: int = 50):
        """Saves the curve up to `largest` values as a picture; returns its path."""
        return plot_variance({"": self}, path, title, largest)

    def to_dict(self) -> dict:
        """What was measured, ready for JSON; the curve up to 100 values."""
        return {
            "inputs": self.inputs,
            "features": self.features,
            "curve": self.curve[:100].tolist(),
            "effective_rank": self.effective_rank,
            "rank_99": self.rank_for(0.99),
        }


def variance_ratio(
    model_or_activations, x=None, layer=None, *, batch_size: int = 250
) -> VarianceRatio:
    """The share of the activations' variance in their first singular values.

    Sanyal et al. 2018, https://arxiv.org/abs/1804.07090, figure of the variance ratio. Exact up
    to rounding, in float64: from the covariance where there are at least as many inputs as
    features, else from the Gram matrix of the inputs, so that memory is the square of the
    smaller number and a bounded number of rows. Both square the values: singular values below
    1e-8 of the largest are rounding.

    Args:
        model_or_activations: Keras model, or activations `(n, ...)`, floating point.
        x: `(n, ...)` inputs of the model; None for activations.
        layer: name of the layer, or the layer, whose output is looked at, flattened.
        batch_size: inputs at a time.

    Returns:
        `VarianceRatio`: `curve`, `at(k)`, `effective_rank`, `rank_for(0.99)`, `plot(path)`.

    Raises:
        TypeError, ValueError: wrong inputs, or more than 16,384 of both inputs and features.

    >>> z = np.array([[2.0, 0.0, 1.0], [-2.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, -1.0, 1.0]])
    >>> found = variance_ratio(z)
    >>> found.curve.round(6).tolist(), found.rank_for(0.99)
    ([0.8, 1.0, 1.0], 2)
    """
    batch_size = check_batch_size(batch_size)
    if x is None:
        z = check_matrix(model_or_activations, "model_or_activations")
        read, count = functools.partial(_slices, z, batch_size), len(z)
    else:
        if layer is None:
            raise ValueError("`layer` is missing. Name the layer whose activations are meant.")
        read = functools.partial(reader(model_or_activations, layer), x, batch_size)
        count = len(x)
    first = next(iter(read()))
    features = first.shape[1]
    if min(count, features) > LARGEST:
        raise ValueError(
            f"There are {count:,} inputs and {features:,} features, and the smaller number must be "
            f"at most {LARGEST:,}. Give fewer inputs."
        )
    # A mean close to the true one takes the rounding out of sums of large squares.
    shift = first.mean(axis=0, dtype=np.float64)
    if features <= count:
        energy = _covariance(read(), shift, count)
    else:
        energy = _gram(read, shift, count)
    values = np.linalg.eigvalsh(energy)[::-1]
    return VarianceRatio(np.sqrt(np.maximum(values, 0.0)), count, features)


def plot_variance(
    ratios, path, title: str = "Variance in the first singular values", largest: int = 50
):
    """Saves the variance curves of several models in one picture.

    Args:
        ratios: dict name -> `VarianceRatio`.
        path: where the picture goes, .png, .svg or .pdf.
        title: above it.
        largest: number of singular values shown.

    Returns:
        `path`.
    """
    from keras_robust.analysis._lines import lines

    if not isinstance(ratios, collections.abc.Mapping) or not ratios:
        raise ValueError("`ratios` is empty. Give at least one: {name: variance_ratio(...)}.")
    curves = {
        name or "activations": (np.arange(1, len(ratio.curve[:largest]) + 1), ratio.curve[:largest])
        for name, ratio in ratios.items()
    }
    return lines(
        curves,
        path,
        title,
        x_label="singular values",
        y_label="share of the variance",
        y_limits=(0, 1.02),
    )


def check_matrix(z, argument: str = "z") -> np.ndarray:
    """`(n, features)` floating point from `(n, ...)`; raises unless it is finite and not empty."""
    z = np.asarray(z)
    if not np.issubdtype(z.dtype, np.floating):
        raise TypeError(
            f"`{argument}` must be floating-point activations, got dtype {z.dtype}. Give a Keras "
            "model with `x` and `layer`, or an array."
        )
    if z.ndim < 2 or not z.size:
        raise ValueError(f"`{argument}` must have shape (n, features), not empty, got {z.shape}.")
    z = z.reshape(len(z), -1)
    if not np.all(np.isfinite(z)):
        raise ValueError(f"`{argument}` holds NaN or infinite values. Remove or repair them.")
    return z


def _slices(z, batch_size):
    return (z[start : start + batch_size] for start in range(0, len(z), batch_size))


def _covariance(parts, shift, count) -> np.ndarray:
    """The centred `(features, features)` sum of squares."""
    energy, total = np.zeros((len(shift),) * 2), np.zeros(len(shift))
    for part in parts:
        part = part - shift
        energy += part.T @ part
        total += part.sum(axis=0)
    return energy - np.outer(total, total) / count


def _gram(read, shift, count) -> np.ndarray:
    """The centred `(inputs, inputs)` inner products, a panel of rows against all others."""
    energy = np.zeros((count, count))
    rows = max(1, _PANEL_BYTES // (8 * len(shift)))
    for start in range(0, count, rows):
        stop, place = min(start + rows, count), 0
        panel = np.empty((stop - start, len(shift)))
        for part in read():
            end = place + len(part)
            low, high = max(place, start), min(end, stop)
            if low < high:
                panel[low - start : high - start] = part[low - place : high - place] - shift
            if end > stop:  # What comes after a panel finds it full.
                low = max(place, stop)
                energy[start:stop, low:end] = panel @ (part[low - place :] - shift).T
            place = end
        energy[start:stop, start:stop] = panel @ panel.T
    upper = np.triu(energy)
    energy = upper + np.triu(upper, 1).T
    energy -= energy.mean(axis=0)
    return energy - energy.mean(axis=1, keepdims=True)
