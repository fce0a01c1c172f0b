"""Which weights of a kernel stay, by their size: pure functions of numpy arrays."""

import math

import numpy as np


def kept(size: int, sparsity: float) -> int:
    """How many of `size` weights stay: rounded, and at least one, as in TF-MOT.

    >>> kept(72, 0.9), kept(3, 0.99)
    (7, 1)
    """
    return max(round(size * (1 - sparsity)), 1)


def largest(values, count: int) -> np.ndarray:
    """Bool mask of the `count` largest magnitudes; of equal ones the first stay.

    >>> largest(np.array([[0.1, -3.0], [2.0, 0.1]]), 2).tolist()
    [[False, True], [True, False]]
    """
    mask = np.zeros(values.size, bool)
    mask[np.argsort(-np.abs(values).ravel(), kind="stable")[:count]] = True
    return mask.reshape(values.shape)


def layer_mask(values, sparsity: float) -> np.ndarray:
    """The mask of one kernel at `sparsity`."""
    return largest(values, kept(values.size, sparsity))


def global_masks(kernels: dict, sparsity: float) -> dict:
    """Masks by one threshold over all `kernels`, by name; each keeps at least one weight."""
    flat = np.concatenate([values.ravel() for values in kernels.values()])
    mask = largest(flat, kept(flat.size, sparsity))
    masks, start = {}, 0
    for name, values in kernels.items():
        part = mask[start : start + values.size].reshape(values.shape)
        # A layer without weights cuts the network in two.
        masks[name] = part if part.any() else largest(values, 1)
        start += values.size
    return masks


def block_mask(values, sparsity: float, block, pooling: str = "average") -> np.ndarray:
    """The mask of a matrix in which whole blocks go, those of the smallest pooled magnitude.

    Args:
        values: `(inputs, units)`.
        sparsity: share of the blocks that go, in [0, 1).
        block: `(rows, columns)`. Blocks at the edge may be smaller; their mean is over what
            they hold.
        pooling: "average" or "max" of the magnitudes in a block.
    """
    scores = _blocks(np.abs(values), block, np.nanmean if pooling == "average" else np.nanmax)
    mask = np.kron(layer_mask(scores, sparsity), np.ones(block, bool))
    return mask[: values.shape[0], : values.shape[1]].astype(bool)


def zero_blocks(values, block) -> tuple[int, int]:
    """How many blocks of a matrix are all zero, and how many blocks there are."""
    largest_of = _blocks(np.abs(values), block, np.nanmax)
    return int(np.sum(largest_of == 0)), largest_of.size


def _blocks(values, block, reduce):
    rows, columns = (math.ceil(n / b) for n, b in zip(values.shape, block))
    padded = np.full((rows * block[0], columns * block[1]), np.nan)
    padded[: values.shape[0], : values.shape[1]] = values
    return reduce(padded.reshape(rows, block[0], columns, block[1]), axis=(1, 3))


def pattern_mask(values, pattern) -> np.ndarray:
    """In each group of n weights along the input channels the m smallest go, `pattern` (m, n)."""
    zeros, group = pattern
    moved = np.moveaxis(values, -2, -1)
    # What pads the last group is zero already, and goes first.
    padded = _grouped(np.abs(moved), group, -1.0)
    order = np.argsort(padded, axis=-1, kind="stable")
    mask = np.ones(padded.shape, bool)
    np.put_along_axis(mask, order[..., :zeros], False, axis=-1)
    mask = mask.reshape(*moved.shape[:-1], -1)[..., : moved.shape[-1]]
    return np.moveaxis(mask, -1, -2)


def bad_groups(values, pattern) -> int:
    """How many groups keep more than n - m weights."""
    zeros, group = pattern
    counted = np.count_nonzero(_grouped(np.moveaxis(values, -2, -1), group, 0), axis=-1)
    return int(np.sum(counted > group - zeros))


def _grouped(moved, group, fill):
    """`(..., channels)` as `(..., groups, group)`, padded with `fill`."""
    pad = -moved.shape[-1] % group
    wide = np.pad(moved, [(0, 0)] * (moved.ndim - 1) + [(0, pad)], constant_values=fill)
    return wide.reshape(*moved.shape[:-1], -1, group)
