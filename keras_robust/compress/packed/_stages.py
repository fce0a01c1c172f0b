"""What a weight would take in the forms that Deep Compression compares: bytes, none written.

Han, Mao and Dally 2015, https://arxiv.org/abs/1510.00149.
"""

import math

import numpy as np

from keras_robust.compress.packed import _huffman

_INDEX_BITS = 5  # Of a gap between two weights, as the paper has it for its LeNets.


def entropy(values: np.ndarray) -> float:
    """Bits a value takes at least where each is coded on its own.

    >>> entropy(np.array([0, 0, 1, 1]))
    1.0
    """
    counts = np.unique(_bits(values), return_counts=True)[1]
    share = counts / max(1, values.size)
    return float(abs(-(share * np.log2(share)).sum()))


def stages(values: np.ndarray) -> dict[str, int]:
    """Bytes of one weight in each form.

    "sparse": gaps of 5 bits to the next nonzero weight, a filler zero where a gap is longer, and
    the weights as they are. "codebook": the gaps, and fixed-width indices into a codebook.
    "huffman": both streams by Huffman's code, its table counted with a byte a symbol. Each falls
    back to the one before, and to dense, where that is smaller. "entropy": the limit of coding
    each weight on its own, without codebook.
    """
    bits = _bits(values)
    dense = values.nbytes
    width = 8 * values.dtype.itemsize
    places = np.flatnonzero(bits)
    runs = np.diff(places, prepend=-1) - 1
    longest = (1 << _INDEX_BITS) - 1
    fillers = int((runs // (longest + 1)).sum())
    book, indices = np.unique(bits[places], return_inverse=True)
    # A filler is a stored weight, zero.
    stored = places.size + fillers
    sparse = stored * (_INDEX_BITS + width) / 8
    if fillers:
        book, indices = np.append(book, 0), np.append(indices, np.full(fillers, book.size))
    table = book.size * width / 8
    per_index = max(1, math.ceil(math.log2(max(2, book.size))))
    fixed = stored * (_INDEX_BITS + per_index) / 8 + table
    gaps = np.append(runs % (longest + 1), np.full(fillers, longest))
    coded = (huffman_bits(gaps) + huffman_bits(indices)) / 8 + table + book.size + longest + 1
    every, where = np.unique(bits, return_inverse=True)
    plain = every.size * width / 8
    fixed_dense = bits.size * math.ceil(math.log2(max(2, every.size))) / 8 + plain
    coded_dense = huffman_bits(where) / 8 + plain + every.size
    sparse = min(dense, math.ceil(sparse))
    codebook = min(sparse, math.ceil(fixed), math.ceil(fixed_dense))
    return {
        "dense": dense,
        "sparse": sparse,
        "codebook": codebook,
        "huffman": min(codebook, math.ceil(coded), math.ceil(coded_dense)),
        "entropy": math.ceil(entropy(values) * values.size / 8),
    }


def huffman_bits(symbols: np.ndarray) -> int:
    """Bits of `symbols` in Huffman's code, without its table.

    >>> huffman_bits(np.array([0, 0, 0, 0, 1, 1, 2, 3]))
    14
    """
    counts = np.unique(symbols, return_counts=True)[1]
    return int(counts @ _huffman.lengths(counts))


def _bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).reshape(-1).view(f"u{values.dtype.itemsize}")
