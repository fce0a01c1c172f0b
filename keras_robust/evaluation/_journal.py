"""What an evaluation has finished, kept on disk line by line, so that it can be stopped."""

import base64
import json
import os
import zlib
from pathlib import Path

import numpy as np

from keras_robust._files import beside

_VERSION = 1
_FILE = "journal.jsonl"


class Journal:
    """Results by key; what a file holds is not computed again.

    Each line is a checksum and JSON, written whole or not at all as far as a killed process is
    concerned. A last line that is cut off, or a damaged one, is dropped and computed again.

    Args:
        path: a folder, or the file itself where it has a suffix; None keeps nothing.
        fingerprint: name -> text of all that the results depend on.
        say: takes a line of progress.

    Raises:
        ValueError: the file belongs to other arguments, or is no journal, or can't be written.
    """

    def __init__(self, path, fingerprint: dict[str, str], say):
        self._found, self._file = {}, None
        if path is None:
            return
        path = Path(path)
        if path.is_dir() or not path.suffix:
            path = path / _FILE
        header = _line({"journal": _VERSION, "fingerprint": fingerprint})
        kept, damaged = _read(path, header, fingerprint)
        if damaged or not kept:
            # Made anew without what is damaged; before anything is added.
            with beside(path) as temporary:
                temporary.write_bytes(b"".join(line for line, _ in kept) or header)
        self._found = {tuple(record["key"]): record["value"] for _, record in kept[1:]}
        if self._found:
            say(f"journal: {len(self._found)} finished parts taken from {path}")
        if damaged:
            say(f"journal: {damaged} damaged lines of {path} dropped, their parts run again")
        # Unbuffered and appending: a line is on its way to the disk when `once` returns.
        self._file = path.open("ab", buffering=0)

    def once(self, key: tuple, compute):
        """`compute()`, or what it returned when it was last called for this key.

        Args:
            key: strings and ints.
            compute: returns numbers, strings, None, arrays, or dicts and lists of these.
        """
        if key in self._found:
            return _decode(self._found[key])
        value = compute()
        if self._file is not None:
            line = _line({"key": list(key), "value": _encode(value)})
            if self._file.write(line) != len(line):
                raise OSError(f"{self._file.name!r} could not be written whole: is the disk full?")
            os.fsync(self._file.fileno())
        return value

    def close(self) -> None:
        """Lets go of the file, which stays."""
        if self._file is not None:
            self._file.close()


def _read(path, header, fingerprint) -> tuple[list, int]:
    """The (line, record) pairs that are whole, the header first, and how many are not."""
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise ValueError(f"`journal`: {str(path)!r} cannot be read: {error}.") from error
    if header.startswith(content):  # missing, empty, or killed while it was begun
        return [], 0
    lines = content.splitlines(keepends=True)
    records = [(line, _parse(line)) for line in lines]
    first = records[0][1]
    if not isinstance(first, dict) or first.get("journal") != _VERSION:
        raise ValueError(
            f"`journal` is {str(path)!r}, which is no journal of this version, or its first "
            "line is damaged. Give another path, or delete it to start again."
        )
    _compare(first["fingerprint"], fingerprint, path)
    kept = [records[0]] + [pair for pair in records[1:] if pair[1] and "key" in pair[1]]
    return kept, len(records) - len(kept)


def _compare(theirs, ours, path):
    differing = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
    if differing:
        raise ValueError(
            f"`journal` {str(path)!r} was begun with other arguments: {', '.join(differing)} "
            f"{'differs' if len(differing) == 1 else 'differ'}. Give the same arguments, another "
            "journal, or delete this one to start again."
        )


def _line(record) -> bytes:
    text = json.dumps(record, separators=(",", ":"), allow_nan=True).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _parse(line: bytes) -> dict | None:
    """The record of a line that is whole."""
    check, _, text = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or check != b"%08x" % zlib.crc32(text):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


def _encode(value):
    if isinstance(value, np.ndarray):
        packed = base64.b85encode(zlib.compress(np.ascontiguousarray(value).tobytes(), 1))
        return {"dtype": value.dtype.str, "shape": list(value.shape), "array": packed.decode()}
    if isinstance(value, dict):
        return {key: _encode(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(part) for part in value]
    return value


def _decode(value):
    if isinstance(value, dict) and "array" in value:
        content = zlib.decompress(base64.b85decode(value["array"]))
        return np.frombuffer(content, value["dtype"]).reshape(value["shape"]).copy()
    if isinstance(value, dict):
        return {key: _decode(part) for key, part in value.items()}
    return [_decode(part) for part in value] if isinstance(value, list) else value
