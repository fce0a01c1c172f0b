"""Whole numbers of any size in few bytes, and a reader that never runs off the end."""

import numpy as np


class Damaged(ValueError):
    """What was read cannot have been written by `pack`; says what is wrong."""


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the high bit says that more follow.

    >>> varint(300)
    b'\\xac\\x02'
    """
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


class Reader:
    """Reads what was written, piece by piece; `Damaged` where something is missing."""

    def __init__(self, content: bytes):
        self._content = memoryview(content)
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._content) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise Damaged(f"{count} bytes are announced, {self.left} are left")
        self._at += count
        return bytes(self._content[self._at - count : self._at])

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        value = 0
        for shift in range(0, 63, 7):
            byte = self.byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise Damaged("a number does not end")

    def piece(self) -> bytes:
        """What was written by `piece`: its length, then itself."""
        return self.take(self.number())

    def array(self, dtype, count: int) -> np.ndarray:
        dtype = np.dtype(dtype)
        return np.frombuffer(self.take(dtype.itemsize * count), dtype)

    def end(self) -> None:
        if self.left:
            raise Damaged(f"{self.left} bytes are left over")


def piece(content: bytes) -> bytes:
    """`content` after its length."""
    return varint(len(content)) + content
