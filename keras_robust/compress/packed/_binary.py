"""A binary arithmetic coder: each bit costs `-log2` of the probability it was given.

The carry-propagating range coder of Martin 1979, as LZMA has it, with probabilities of 16 bits.
The loops are plain Python, a third of a microsecond a bit; all modelling is left to numpy.
"""

import numpy as np

ONE = 1 << 16  # Probability one.
_LEAST = 1 << 24
_TOP = 1 << 32


class Encoder:
    """Takes bits with their probabilities; `finish` gives the bytes."""

    def __init__(self):
        self._out = bytearray()
        self._low, self._range = 0, _TOP - 1

    def code(self, bits: np.ndarray, chances: np.ndarray) -> np.ndarray:
        """Writes `bits`; `chances` are the probabilities of a 1, in (0, ONE). Gives them back."""
        low, span, out = self._low, self._range, self._out
        for bit, chance in zip(bits.tolist(), chances.tolist(), strict=True):
            bound = (span >> 16) * chance
            if bit:
                span = bound
            else:
                low += bound
                span -= bound
            while span < _LEAST:
                if low >= _TOP:
                    low -= _TOP
                    _carry(out)
                out.append(low >> 24)
                low = (low << 8) & (_TOP - 1)
                span <<= 8
        self._low, self._range = low, span
        return bits

    def finish(self) -> bytes:
        """The fewest bytes that still decode: the decoder reads zeros after the end."""
        low, high = self._low, self._low + self._range - 1
        for keep in range(5):
            step = 1 << (8 * (4 - keep))
            value = -(-low // step) * step
            if value <= high:
                break
        if value >= _TOP:
            value -= _TOP
            _carry(self._out)
        return bytes(self._out + value.to_bytes(4, "big")).rstrip(b"\0")


def _carry(out: bytearray) -> None:
    at = len(out) - 1
    while out[at] == 255:
        out[at] = 0
        at -= 1
    out[at] += 1


class Decoder:
    """The way back; takes the same probabilities in the same order."""

    def __init__(self, content: bytes):
        self._content = content
        self._at = 4
        self._range = _TOP - 1
        self._code = int.from_bytes(content[:4].ljust(4, b"\0"), "big")

    def code(self, bits, chances: np.ndarray) -> np.ndarray:
        """The next bits, as many as `chances`; the first argument is not looked at."""
        code, span, at, content = self._code, self._range, self._at, self._content
        size, out = len(content), []
        for chance in chances.tolist():
            bound = (span >> 16) * chance
            if code < bound:
                span = bound
                out.append(1)
            else:
                code -= bound
                span -= bound
                out.append(0)
            while span < _LEAST:
                span <<= 8
                code = code << 8 | (content[at] if at < size else 0)
                at += 1
        self._code, self._range, self._at = code, span, at
        return np.array(out, np.int64)
