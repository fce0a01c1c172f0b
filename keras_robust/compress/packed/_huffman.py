"""Symbols in whole bits each, by Huffman's code in its canonical form.

Huffman 1952, https://doi.org/10.1109/JRPROC.1952.273898. Of a canonical code the lengths of its
words say all (RFC 1951, section 3.2.2): half a byte a symbol, where frequencies take a whole one.
So short streams are shorter in it than by `_rans`.
"""

import heapq

import numpy as np

from keras_robust.compress.packed._bytes import Damaged, Reader, varint
from keras_robust.compress.packed._rans import symbol_dtype

_LONGEST = 15  # Bits of a word.


def lengths(counts: np.ndarray) -> np.ndarray:
    """Bits of the word of each symbol, 0 where it never comes; 1 where it comes alone.

    >>> lengths(np.array([5, 2, 0, 1, 1])).tolist()
    [1, 2, 0, 3, 3]
    """
    present = np.flatnonzero(counts)
    bits = np.zeros(len(counts), np.int64)
    if present.size == 1:
        bits[present] = 1
        return bits
    heap, above = [(count, leaf) for leaf, count in enumerate(counts[present].tolist())], {}
    heapq.heapify(heap)
    while len(heap) > 1:
        few, left = heapq.heappop(heap)
        more, right = heapq.heappop(heap)
        # Nodes are numbered as they are made, so that each is below a later one.
        above[left] = above[right] = node = present.size + len(above) // 2
        heapq.heappush(heap, (few + more, node))
    depths = [0] * (len(above) + 1)
    for node in sorted(above, reverse=True):
        depths[node] = depths[above[node]] + 1
    bits[present] = depths[: present.size]
    return bits


def encode(symbols: np.ndarray, alphabet: int) -> bytes:
    """`symbols` in [0, alphabet), the lengths of their words before them; not their number."""
    if symbols.size == 0:
        return b""
    counts = np.bincount(symbols, minlength=alphabet)
    bits = lengths(counts)
    while bits.max() > _LONGEST:  # Rare symbols are taken to be less rare.
        counts = (counts + 1) // 2
        bits = lengths(counts)
    header = _nibbles(bits)
    if np.count_nonzero(bits) == 1:
        return header
    words, own = _words(bits)[symbols], bits[symbols]
    starts = np.cumsum(own) - own
    flags = np.empty(int(own.sum()), np.uint8)
    for place in range(int(bits.max())):
        long = own > place
        flags[starts[long] + place] = words[long] >> (own[long] - 1 - place) & 1
    content = np.packbits(flags).tobytes()
    return header + varint(len(content)) + content


def decode(reader: Reader, count: int, alphabet: int) -> np.ndarray:
    """The next `count` symbols, uint16 or uint8."""
    dtype = symbol_dtype(alphabet)
    if count == 0:
        return np.zeros(0, dtype)
    bits = _from_nibbles(reader.array(np.uint8, -(-alphabet // 2)), alphabet)
    present = np.flatnonzero(bits)
    if present.size == 1:
        return np.full(count, present[0], dtype)
    # Every sequence of bits must be one of words.
    if np.sum(1 << (_LONGEST - bits[present])) != 1 << _LONGEST:
        raise Damaged("the words of a Huffman code do not fit together")
    length = reader.number()
    if not count <= 8 * length <= _LONGEST * count + 7:
        raise Damaged(f"{length} bytes for {count} symbols: a stream of symbols ends early or late")
    content = reader.array(np.uint8, length)
    flags = np.unpackbits(np.concatenate([content, np.zeros(2, np.uint8)]))
    windows = np.zeros(8 * content.size, np.uint16)
    for place in range(_LONGEST):
        windows |= flags[place : place + windows.size].astype(np.uint16) << (_LONGEST - 1 - place)
    order = present[np.argsort(bits[present], kind="stable")]
    symbol_of = np.repeat(order.astype(dtype), 1 << (_LONGEST - bits[order]))
    found = symbol_of[windows]
    steps, starts, at = bits[found].tolist(), [], 0
    for _ in range(count):
        if at >= len(steps):
            raise Damaged("a stream of symbols ends early")
        starts.append(at)
        at += steps[at]
    if -(-at // 8) != content.size or flags[at:].any():
        raise Damaged("a stream of symbols does not end as it began")
    return found[starts]


def _words(bits: np.ndarray) -> np.ndarray:
    """The canonical words: in the order of their lengths, then of the symbols, each one more."""
    words, word, last = np.zeros(len(bits), np.int64), 0, 0
    for symbol in np.argsort(bits, kind="stable"):
        if bits[symbol]:
            word <<= int(bits[symbol]) - last
            words[symbol], last = word, int(bits[symbol])
            word += 1
    return words


def _nibbles(bits: np.ndarray) -> bytes:
    even = np.append(bits, [0] * (len(bits) % 2)).astype(np.uint8)
    return (even[::2] << 4 | even[1::2]).tobytes()


def _from_nibbles(content: np.ndarray, alphabet: int) -> np.ndarray:
    bits = np.stack([content >> 4, content & 15], 1).reshape(-1).astype(np.int64)
    if bits[alphabet:].any() or not bits.any():
        raise Damaged("no symbol has a word")
    return bits[:alphabet]
