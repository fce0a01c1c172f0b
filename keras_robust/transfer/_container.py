"""A small file of named arrays: checked when read, so that a damaged one is never believed."""

import json
import lzma
import struct
import zlib
from pathlib import Path

import numpy as np

from keras_robust._files import beside

MAGIC = b"KRTRANS1"
CODECS = ("none", "zlib", "lzma")
_START = struct.Struct("<8sII")
_DTYPES = ("<f4", "|u1", "<u2")
# xz's own header and checks would be more than a small array; ours are below.
_LZMA = {"format": lzma.FORMAT_ALONE, "preset": 6}


def write(path, about: dict, arrays: dict, codec: str) -> None:
    """Writes arrays beside `path` and renames.

    Args:
        path: of the file.
        about: what JSON can hold.
        arrays: dict name -> float32, uint8 or uint16 array.
        codec: "none", "zlib" or "lzma"; "auto" takes the smallest for each array.
    """
    entries, contents = [], []
    for name, values in arrays.items():
        values = np.ascontiguousarray(values, np.dtype(values.dtype).newbyteorder("<"))
        best, content = _encoded(values, codec)
        entries.append([name, values.dtype.str, list(values.shape), best, len(content)])
        contents.append(content)
    payload = b"".join(contents)
    head = {**about, "arrays": entries, "crc": zlib.crc32(payload)}
    head = json.dumps(head, separators=(",", ":")).encode()
    with beside(path) as temporary:
        temporary.write_bytes(_START.pack(MAGIC, len(head), zlib.crc32(head)) + head + payload)


def read(path, kind: str) -> tuple[dict, dict]:
    """What was said about the arrays, and the arrays; nothing in the file is run or trusted.

    Args:
        path: of the file.
        kind: what `about["kind"]` must be.

    Raises:
        ValueError: no such file, another kind of file, or a damaged one.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"`path`: cannot read {str(path)!r}: {error}.") from None
    if content[:8] != MAGIC[: len(content[:8])] or not content:
        raise ValueError(
            f"`path`: {str(path)!r} was not written by kr.transfer.save_embeddings or "
            "save_projection."
        )
    try:
        about, arrays = _parsed(content)
    except (ValueError, KeyError, TypeError, struct.error, zlib.error, lzma.LZMAError) as error:
        raise ValueError(
            f"`path`: {str(path)!r} is damaged or cut off ({error}). Write it again."
        ) from None
    if about.get("kind") != kind:
        raise ValueError(
            f"`path`: {str(path)!r} holds {about.get('kind')}, but {kind} are to be read."
        )
    return about, arrays


def _encoded(values, codec: str) -> tuple[str, bytes]:
    plain = _planes(values)
    encoded = {
        "none": lambda: plain,
        "zlib": lambda: zlib.compress(plain, 9),
        "lzma": lambda: lzma.compress(plain, **_LZMA),
    }
    names = CODECS if codec == "auto" else (codec,)
    return min(((name, encoded[name]()) for name in names), key=lambda pair: len(pair[1]))


def _planes(values) -> bytes:
    """First bytes first, then second bytes, ...: those of one place are alike."""
    return values.reshape(-1).view(np.uint8).reshape(-1, values.itemsize).T.tobytes()


def _parsed(content: bytes) -> tuple[dict, dict]:
    _, length, check = _START.unpack_from(content)
    head = content[_START.size : _START.size + length]
    if len(head) != length or zlib.crc32(head) != check:
        raise ValueError("its head does not fit its checksum")
    about = json.loads(head)
    payload = content[_START.size + length :]
    if zlib.crc32(payload) != about["crc"]:
        raise ValueError("its content does not fit its checksum")
    arrays, place = {}, 0
    for name, dtype, shape, codec, stored in about.pop("arrays"):
        if dtype not in _DTYPES:
            raise ValueError(f"it has numbers of type {dtype!r}")
        dtype = np.dtype(dtype)
        size = dtype.itemsize
        for side in shape:
            size *= side
        plain = _decoded(payload[place : place + stored], codec, size)
        if len(plain) != size:
            raise ValueError(f"{name!r} has another length than it says")
        planes = np.frombuffer(plain, np.uint8).reshape(dtype.itemsize, -1)
        arrays[name] = np.ascontiguousarray(planes.T).view(dtype).reshape(shape)
        place += stored
    if place != len(payload):
        raise ValueError("there is more in it than it says")
    return about, arrays


def _decoded(content: bytes, codec: str, size: int) -> bytes:
    """At most one byte more than `size`: a small file cannot fill the memory."""
    if codec == "none":
        return content
    if codec == "zlib":
        return zlib.decompressobj().decompress(content, size + 1)
    if codec == "lzma":
        return lzma.LZMADecompressor(_LZMA["format"]).decompress(content, size + 1)
    raise ValueError(f"it is packed by {codec!r}")
