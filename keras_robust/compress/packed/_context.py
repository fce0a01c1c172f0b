"""Codes the indices of a kernel by what stands around them: where its zeros are, then the rest.

A kernel is read as rows (inputs) by columns (outputs). Zeros of a trained net are not strewn
evenly: a unit has many or few, an input at the rim of the image has none but zeros, and the
weights of neighbouring pixels resemble each other.
"""

import numpy as np

from keras_robust.compress.packed._binary import Decoder, Encoder
from keras_robust.compress.packed._bytes import Damaged, Reader, varint
from keras_robust.compress.packed._mixer import Mixer

MOST_SYMBOLS = 1 << 10
_BATCH = 128
_NEIGHBOURS = 4
_FARTHEST = 1024
_LEVELS = 12  # Of a density, on a logarithmic scale.


def encode(indices: np.ndarray, alphabet: int, zero: int | None) -> bytes:
    """`indices` `(rows, columns)` in [0, alphabet), `zero` the one that is coded apart."""
    if alphabet < 2:
        return b""
    flags = indices != zero if zero is not None else np.ones(indices.shape, bool)
    distances = _distances(flags if zero is not None else indices > np.median(indices))
    header = varint(len(distances)) + b"".join(varint(d) for d in distances)
    coder = Encoder()
    symbols = indices if zero is None else indices - (indices > zero)
    _run(coder, flags, symbols, indices.shape, alphabet, zero, distances)
    return header + coder.finish()


def decode(content: bytes, shape, alphabet: int, zero: int | None) -> np.ndarray:
    """The indices, int64 `shape`."""
    if alphabet < 2:
        return np.zeros(shape, np.int64)
    reader = Reader(content)
    count = reader.number()
    if count > _NEIGHBOURS:
        raise Damaged(f"{count} neighbours")
    distances = [reader.number() for _ in range(count)]
    if any(not 1 <= d <= min(_FARTHEST, shape[0]) for d in distances):
        raise Damaged(f"neighbours at {distances}")
    coder = Decoder(reader.take(reader.left))
    flags, symbols = _run(coder, None, None, shape, alphabet, zero, distances)
    if zero is None:
        return symbols
    return np.where(flags, symbols + (symbols >= zero), zero)


def _run(coder, flags, symbols, shape, alphabet, zero, distances):
    if zero is None:
        flags = np.ones(shape, bool)
    else:
        flags = _flags(coder, flags, shape, distances)
    symbols = _symbols(coder, symbols, flags, alphabet - (zero is not None), distances)
    return flags, symbols


def _distances(pattern: np.ndarray) -> list[int]:
    """The row distances whose rows tell most about a row, by mutual information."""
    rows = pattern.shape[0]
    if rows < 4:
        return []
    found = []
    step = max(1, pattern.shape[1] // 512)
    sample = pattern[:, ::step].astype(np.float32)
    for distance in range(1, min(rows // 2, _FARTHEST) + 1):
        near, far = sample[distance:], sample[:-distance]
        both, a, b = float((near * far).sum()), float(near.sum()), float(far.sum())
        found.append((_information(both, a, b, near.size), -distance))
    return [-d for value, d in sorted(found, reverse=True)[:_NEIGHBOURS] if value > 0]


def _information(both, a, b, n) -> float:
    table = np.array([both, a - both, b - both, n - a - b + both]) / n
    margins = np.array([a * b, a * (n - b), (n - a) * b, (n - a) * (n - b)]) / n**2
    ok = (table > 0) & (margins > 0)
    return float((table[ok] * np.log(table[ok] / margins[ok])).sum() * n)


def _density(ones, total):
    """A level for `ones` among `total`: how often the share must be doubled to reach one."""
    return _HALVINGS[np.minimum((2 * ones + 1) * 4096 // (2 * total + 2), 4096)]


_HALVINGS = np.array(
    [_LEVELS - 1 if r == 0 else min(_LEVELS - 1, (4096 // r).bit_length() - 1) for r in range(4097)]
)


def _flags(coder, given, shape, distances):
    """Whether each index is not the zero."""
    rows, columns = shape
    far = max(distances, default=1) + 1
    # Rows of zeros before the first; what is not known yet reads as zero as well.
    known = np.zeros((rows + far, columns + 2), np.int64)
    flat_row, flat_column = np.divmod(np.arange(rows * columns), columns)
    row_sum, column_sum = np.zeros(rows + far, np.int64), np.zeros(columns, np.int64)
    seen_row = np.zeros(rows + far, np.int64)
    four = (distances + [far] * _NEIGHBOURS)[:_NEIGHBOURS]
    mixer = Mixer([1, columns, rows, 1 << 6, _LEVELS**2, _LEVELS**2, _LEVELS * 9, _LEVELS**2])
    for start in range(0, rows * columns, _BATCH):
        i, j = flat_row[start : start + _BATCH], flat_column[start : start + _BATCH]
        r, c = i + far, j + 1
        near = [known[r - d, c] for d in four]
        sides = known[r - four[0], c - 1] + known[r - four[0], c + 1]
        pattern = near[0] | near[1] << 1 | near[2] << 2 | near[3] << 3 | sides << 4
        around = sum(near) + known[r - four[1], c - 1] + known[r - four[1], c + 1] + sides
        of_column = _density(column_sum[j], i)
        of_row = _density(row_sum[r], seen_row[r])
        past = [_density(row_sum[r - d], np.int64(columns)) for d in four[:2]]
        contexts = np.stack(
            [
                np.zeros_like(i),
                j,
                i,
                np.minimum(pattern, 63),
                past[0] * _LEVELS + past[1],
                of_row * _LEVELS + of_column,
                of_column * 9 + np.minimum(around, 8),
                past[0] * _LEVELS + of_row,
            ]
        )
        bits = None if given is None else given[i, j].astype(np.int64)
        bits = mixer.code(coder, bits, contexts)
        known[r, c] = bits
        np.add.at(row_sum, r, bits)
        np.add.at(seen_row, r, 1)
        np.add.at(column_sum, j, bits)
    return known[far:, 1:-1].astype(bool)


def _symbols(coder, given, flags, alphabet, distances):
    """The index of each place that `flags` has, bit by bit, the highest first."""
    rows, columns = flags.shape
    values = np.zeros(flags.shape, np.int64)
    if alphabet < 2:
        return values
    planes = (alphabet - 1).bit_length()
    far = max(distances, default=1)
    # 0 is unknown, or the zero; else a quarter of the alphabet.
    coarse = np.zeros((rows + far, columns), np.int64)
    column_level, row_level = np.zeros((2, columns), np.int64), np.zeros((2, rows), np.int64)
    two = (distances + [far] * 2)[:2] if distances else [1, 1]
    nodes = 1 << planes
    mixer = Mixer([nodes, nodes * 25, nodes * 16, nodes * 16, 16 * columns], planes)
    places = np.flatnonzero(flags)
    for start in range(0, places.size, _BATCH):
        i, j = np.divmod(places[start : start + _BATCH], columns)
        near = coarse[i + far - two[0], j] * 5 + coarse[i + far - two[1], j]
        spread = _spread(column_level[:, j], alphabet)
        spread_row = _spread(row_level[:, i], alphabet)
        node = np.ones_like(i)
        wanted = None if given is None else given[i, j]
        for plane in reversed(range(planes)):
            contexts = np.stack(
                [
                    node,
                    node * 25 + near,
                    node * 16 + spread,
                    node * 16 + spread_row,
                    np.minimum(node, 15) * columns + j,
                ]
            )
            bits = None if wanted is None else wanted >> plane & 1
            bits = mixer.code(coder, bits, contexts, planes - 1 - plane)
            node = node << 1 | bits
        value = node - nodes
        if given is None and np.any(value >= alphabet):
            raise Damaged("an index is larger than the codebook")
        values[i, j] = value
        coarse[i + far, j] = 1 + value * 4 // alphabet
        away = np.abs(2 * value - alphabet + 1)
        for level, at in ((column_level, j), (row_level, i)):
            np.add.at(level[0], at, away)
            np.add.at(level[1], at, 1)
    return values


def _spread(level, alphabet):
    """The mean distance from the middle of the codebook, in 15 steps; 0 where none is known."""
    total, count = level
    return np.where(count > 0, 1 + np.minimum(total * 14 // np.maximum(count * alphabet, 1), 14), 0)
