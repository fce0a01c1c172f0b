"""A model in one small file, and back: architecture, weights, checksum."""

import math
import pathlib
import typing
import zlib

import numpy as np
import tensorflow as tf

from keras_robust._files import as_path, beside, check_writable
from keras_robust._keras import check_model, is_model
from keras_robust._weights import settle
from keras_robust.compress.packed import _architecture, _quantized, _tensor
from keras_robust.compress.packed._bytes import Damaged, Reader, piece, varint

MAGIC = b"\x89KRZ"  # No text begins with such a byte.
VERSION = 1
_CODES = "int8 of "  # And the position of the weight that 127 stands for.
_EXAMPLE = "model.krz"
_MOST_BYTES = 1 << 30  # So much a small file may ask for.


def pack(model, path, *, vectors: str = "float32") -> int:
    """Writes a model into one file as small as its weights allow, without loss.

    Each weight is coded bit for bit in the way that is smallest for it: a codebook and
    entropy-coded indices (arithmetic coding in context, asymmetric numeral systems, Huffman's code)
    where it has few different values (pruned, clustered, binary), else its bytes, entropy-coded.
    Nothing is rounded: make the weights few with `Prune` and `Cluster` first. The same model gives
    the same bytes. Of a model that `Quantize` made the kernels are stored as the int8 values that
    it computes with, not as the floats behind them: the outputs are the same, bit for bit.

    Args:
        model: a built Sequential or functional model.
        path: where the file goes; replaced when it exists, and left alone on any error.
        vectors: "float32", or "float16" to round the float32 weights with a single axis (biases,
            BatchNormalization) to half precision, which is no longer lossless.

    Returns:
        The size of the file in bytes.

    Raises:
        TypeError: not a model of the Keras that runs, no path.
        ValueError: a layer that cannot be built from its config, by name; a path that cannot be
            written; a weight too large for float16.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> pack(model, "model.krz") < 700
    True
    >>> bool(np.all(unpack("model.krz").get_weights()[0] == model.get_weights()[0]))
    True
    """
    path = as_path(path, "path", _EXAMPLE)
    content = b"".join(assemble(model, vectors)[0])
    check_writable(path, "path")
    with beside(path) as temporary:
        temporary.write_bytes(content)
    return len(content)


def assemble(model, vectors: str = "float32"):
    """The parts of the file, in order, and the weights as `named` gives them, rounded if asked.

    The parts are the start with the architecture, one a weight, and the checksum.
    """
    check_model(model)
    if not is_model(model):
        raise TypeError(
            f"`model` must be a Keras model, got {type(model).__name__}. Write "
            f"pack(model, {_EXAMPLE!r}), with the model itself first."
        )
    if vectors not in ("float32", "float16"):
        raise ValueError(f'`vectors` must be "float32" or "float16", got {vectors!r}.')
    architecture = _architecture.serialize(model)
    total = sum(math.prod(w.shape) * tf.as_dtype(w.dtype).size for w in model.weights)
    if total > _MOST_BYTES:
        raise ValueError(
            f"`model` has {total:,} bytes of weights, a packed file may hold {_MOST_BYTES:,}. Save "
            "it with model.save instead."
        )
    start = MAGIC + bytes([VERSION]) + piece(architecture)
    weights = [
        (layer, name, _rounded(value, layer, vectors)) for layer, name, value in named(model)
    ]
    parts = [start + varint(len(weights))]
    codes = _quantized.codes(model)
    for place, (layer, name, value) in enumerate(weights):
        kind = value.dtype.name
        if place in codes:
            value, top = codes[place]
            kind = f"{_CODES}{top}"
            weights[place] = layer, name, _quantized.values(value, weights[top][2])
        header = piece(kind.encode()) + bytes([value.ndim]) + b"".join(map(varint, value.shape))
        parts.append(header + piece(_tensor.encode(value)))
    parts.append(zlib.crc32(b"".join(parts)).to_bytes(4, "little"))
    return parts, weights


def named(model) -> list[tuple[str, str, np.ndarray]]:
    """Layer name, weight name and value of each of `model.weights`, in that order."""
    places = {}
    for layer in flat_layers(model):
        for weight in layer.weights:
            places.setdefault(id(weight), layer.name)
    return [
        (places[id(w)], w.name.rpartition("/")[2].partition(":")[0], np.asarray(w.numpy()))
        for w in model.weights
    ]


def flat_layers(model):
    """The layers of a model and of those inside it."""
    for layer in model.layers:
        if is_model(layer):
            yield from flat_layers(layer)
        else:
            yield layer


def _rounded(value, layer, vectors):
    if vectors == "float32" or value.dtype != np.float32 or value.ndim > 1:
        return value
    with np.errstate(over="ignore"):
        half = value.astype(np.float16).astype(np.float32)
    if np.any(np.isinf(half) & np.isfinite(value)):
        raise ValueError(
            f"Layer {layer!r} has a weight of {np.abs(value).max():g}, too large for "
            'vectors="float16". Leave that out.'
        )
    return half


def unpack(path):
    """The model in a file that `pack` wrote, its weights bit for bit as they were.

    The Keras that runs need not be the one that packed it: the model is then rebuilt as by
    `kr.from_keras3` or `kr.to_keras3`. It is not compiled. No code in a file is ever
    run, and no layer is made that opens files or calls more than pure functions of TensorFlow.
    Memory is bounded for weights, not for what layers compute while they are built.

    Args:
        path: the file.

    Returns:
        A model of the Keras that runs.

    Raises:
        TypeError: no path.
        ValueError: missing, damaged, of another kind or a later version; names the path.
    """
    path = as_path(path, "path", _EXAMPLE)
    try:
        architecture, stored = read(path)
        model = _architecture.rebuild(architecture, sum(each.bytes for each in stored))
        # Before any is decoded: a few bytes may stand for a weight of any size.
        wanted = [(tuple(w.shape), tf.as_dtype(w.dtype).name) for w in model.weights]
        if wanted != (held := [(each.shape, each.announced) for each in stored]):
            raise Damaged(f"its architecture has weights {wanted}, it holds {held}")
        for variable, value in zip(model.weights, decode(stored), strict=True):
            variable.assign(value)
        settle(model)
        return _architecture.for_this_keras(model, _architecture.written_by_legacy(architecture))
    except Exception as error:  # Building and converting raise what they like.
        what = str(error).strip()[:2000] or type(error).__name__
        raise ValueError(f"{str(path)!r} cannot be unpacked: {what}.") from error


class Stored(typing.NamedTuple):
    """A weight as it stands in a file: its dtype, or what its codes are relative to, and shape."""

    dtype: np.dtype
    top: str | None
    shape: tuple[int, ...]
    coded: bytes
    size: int  # On disk, with its header.

    @property
    def announced(self) -> str:
        """The dtype that it comes back in."""
        return "float32" if self.top is not None else tf.as_dtype(self.dtype).name

    @property
    def bytes(self) -> int:
        """In memory."""
        return math.prod(self.shape) * tf.as_dtype(self.announced).size


def read(path: pathlib.Path) -> tuple[bytes, list[Stored]]:
    """Architecture and weights, none of these decoded; raises `Damaged`."""
    if not path.is_file():
        raise Damaged("it is a folder" if path.is_dir() else "there is no such file")
    content = path.read_bytes()
    if content[:4] != MAGIC:
        raise Damaged("it is no file of kr.compress.pack")
    if len(content) < 10:
        raise Damaged("it is cut short")
    if content[4] != VERSION:
        raise Damaged(
            f"it has version {content[4]} of the format, this keras_robust reads {VERSION}. Update "
            "keras_robust"
        )
    if zlib.crc32(content[:-4]) != int.from_bytes(content[-4:], "little"):
        raise Damaged("its checksum is wrong: it is cut short or was altered. Copy it again")
    reader = Reader(content[5:-4])
    architecture = reader.piece()
    stored, total = [], 0
    for _ in range(reader.number()):
        before = reader.left
        name, top = reader.piece().decode("ascii", "replace"), None
        if name.startswith(_CODES):
            name, top = "int8", name.removeprefix(_CODES)
        dtype = _dtype(name)
        shape = tuple(reader.number() for _ in range(reader.byte()))
        coded = reader.piece()
        stored.append(Stored(dtype, top, shape, coded, before - reader.left))
        total += stored[-1].bytes
        if total > _MOST_BYTES:
            raise Damaged(f"it announces {total:,} bytes of weights, more than {_MOST_BYTES:,}")
    reader.end()
    return architecture, stored


def decode(stored: list[Stored]) -> list[np.ndarray]:
    """The weights themselves; raises `Damaged`."""
    weights = []
    for each in stored:
        try:
            weights.append(_tensor.decode(each.coded, each.dtype, each.shape))
        except Damaged as error:
            raise Damaged(f"weight {len(weights)}: {error}") from error
    for place, each in enumerate(stored):
        if each.top is not None:
            weights[place] = _restored(weights, place, each.top)
    return weights


def _restored(weights, place: int, top: str) -> np.ndarray:
    """The float32 weight that the codes at `place` stand for."""
    if not top.isdecimal() or int(top) >= len(weights) or weights[int(top)].dtype != np.float32:
        raise Damaged(f"weight {place}: its codes are relative to weight {top!r}, which is none")
    code, largest = weights[place], weights[int(top)]
    try:
        fits = np.broadcast_shapes(code.shape, largest.shape) == code.shape
    except ValueError:
        fits = False
    if not fits:
        raise Damaged(f"weight {place}: its codes and their range do not fit")
    return _quantized.values(code, largest)


def _dtype(name: str) -> np.dtype:
    try:
        dtype = tf.as_dtype(name)
    except TypeError:
        raise Damaged(f"a weight has the unknown dtype {name!r}") from None
    if not (dtype.is_floating or dtype.is_integer or dtype.is_bool):
        raise Damaged(f"a weight has the dtype {name!r}")
    return np.dtype(dtype.as_numpy_dtype)
