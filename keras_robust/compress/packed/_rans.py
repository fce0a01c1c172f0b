"""Symbols of known frequencies in as many bits as their entropy, by vectors of numpy.

Range asymmetric numeral systems, Duda 2013, https://arxiv.org/abs/1311.2540: several coders
("lanes") take the symbols in turn, so that one numpy call moves all of them a step.
"""

import numpy as np

from keras_robust.compress.packed._bytes import Damaged, Reader, varint

_SCALE = 16  # Frequencies sum to 2^16.
_LOW = np.uint64(1 << 31)  # A lane's state stays in [2^31, 2^63), and is filled 32 bits at a time.
_WORD = np.uint64(32)
MOST_SYMBOLS = 1 << 14


def encode(symbols: np.ndarray, alphabet: int) -> bytes:
    """`symbols` in [0, alphabet), their frequencies before them; their number is not written."""
    if symbols.size == 0:
        return b""
    counts = np.bincount(symbols, minlength=alphabet)
    header = _minifloats(counts)
    frequencies, starts = _normalized(header)
    if np.count_nonzero(counts) == 1:
        return header.tobytes()
    lanes = _lanes(symbols.size)
    padded = np.full(-(-symbols.size // lanes) * lanes, symbols[-1], np.int64)
    padded[: symbols.size] = symbols
    states = np.full(lanes, _LOW, np.uint64)
    words = []
    # Last symbol first: the decoder takes from the stack what the encoder puts on it.
    for row in padded.reshape(-1, lanes)[::-1]:
        frequency, start = frequencies[row], starts[row]
        full = states >= frequency << np.uint64(63 - _SCALE)
        if full.any():
            words.append((states[full] & np.uint64(0xFFFFFFFF)).astype("<u4")[::-1])
            states[full] >>= _WORD
        states = ((states // frequency) << np.uint64(_SCALE)) + states % frequency + start
    stream = np.concatenate(words)[::-1] if words else np.zeros(0, "<u4")
    return (
        header.tobytes() + varint(stream.size) + states.astype("<u8").tobytes() + stream.tobytes()
    )


def decode(reader: Reader, count: int, alphabet: int) -> np.ndarray:
    """The next `count` symbols, uint16 or uint8: as many are announced by a few bytes."""
    dtype = symbol_dtype(alphabet)
    if count == 0:
        return np.zeros(0, dtype)
    header = reader.array(np.uint8, alphabet)
    if not header.any():
        raise Damaged("no symbol has a frequency")
    if np.count_nonzero(header) == 1:
        return np.full(count, np.flatnonzero(header)[0], dtype)
    frequencies, starts = _normalized(header)
    lanes = _lanes(count)
    words = reader.number()
    states = reader.array("<u8", lanes).astype(np.uint64)
    stream = reader.array("<u4", words).astype(np.uint64)
    steps = -(-count // lanes)
    if int(words) > steps * lanes:
        raise Damaged("more was written than symbols could need")
    which = np.repeat(np.arange(alphabet), frequencies.astype(np.int64))
    out = np.empty((steps, lanes), dtype)
    mask, at = np.uint64((1 << _SCALE) - 1), 0
    for step in range(steps):
        slot = states & mask
        symbol = which[slot]
        out[step] = symbol
        states = frequencies[symbol] * (states >> np.uint64(_SCALE)) + slot - starts[symbol]
        empty = states < _LOW
        needed = np.count_nonzero(empty)
        if needed:
            if at + needed > stream.size:
                raise Damaged("a stream of symbols ends early")
            states[empty] = states[empty] << _WORD | stream[at : at + needed]
            at += needed
    if at != stream.size or np.any(states != _LOW):
        raise Damaged("a stream of symbols does not end as it began")
    return out.reshape(-1)[:count]


def symbol_dtype(alphabet: int):
    """The smallest that symbols in [0, alphabet) fit into; raises `Damaged` for too many."""
    if alphabet > MOST_SYMBOLS:
        raise Damaged(f"an alphabet of {alphabet} symbols")
    return np.uint8 if alphabet <= 256 else np.uint16


def _lanes(count: int) -> int:
    # Four bytes a lane are lost, one lane in about 8,000 symbols.
    return int(np.clip(count >> 13, 1, 256))


def _minifloats(counts: np.ndarray) -> np.ndarray:
    """Each count in a byte, 0 for none: 5 significant bits, off by 3% at most.

    A frequency that is 3% off costs some ten-thousandths of a bit a symbol.
    """
    scaled = counts * (1 << 14) // max(int(counts.max()), 1)
    scaled = np.maximum(scaled, 1)
    exponent = np.floor(np.log2(scaled)).astype(np.int64)
    mantissa = np.where(
        exponent > 4, scaled >> np.maximum(exponent - 4, 0), scaled << 4 >> exponent
    )
    return np.where(counts > 0, (exponent << 4 | (mantissa & 15)) + 1, 0).astype(np.uint8)


def _normalized(header: np.ndarray):
    """Frequencies of at least 1 that sum to 2^16, uint64, and where each one's slots start."""
    code = np.maximum(header.astype(np.int64) - 1, 0)
    weights = np.where(header > 0, (16 + (code & 15)) << (code >> 4), 0)
    present = header > 0
    free = (1 << _SCALE) - int(present.sum())
    frequencies = present + weights * free // int(weights.sum())
    frequencies[np.argmax(frequencies)] += (1 << _SCALE) - frequencies.sum()
    starts = np.cumsum(frequencies) - frequencies
    return frequencies.astype(np.uint64), starts.astype(np.uint64)
