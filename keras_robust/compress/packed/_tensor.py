"""One weight, bit for bit: as a codebook and indices where it has few values, else by bytes.

Everything works on the bits of the numbers, so that NaN, infinities and -0.0 come back as they
were. Whatever is smallest is taken; the first byte says what it is.
"""

import math

import numpy as np

from keras_robust.compress.packed import _context, _huffman, _rans
from keras_robust.compress.packed._bytes import Damaged, Reader, piece, varint

_BYTES, _HALF, _CODEBOOK, _SPARSE = range(4)
_SYMBOLS, _GAPS, _CONTEXT, _HUFFMAN, _HUFFMAN_GAPS = range(5)
_WIDEST_GAP = 255
# Of indices in each way but the first, which takes any number. Contexts take a microsecond and
# more a weight; Huffman's words are read one by one, and gain where a table counts.
_MOST = {_GAPS: 1 << 24, _CONTEXT: 1 << 22, _HUFFMAN: 1 << 20, _HUFFMAN_GAPS: 1 << 20}
_MOST_COLUMNS = 1 << 17  # Of a context each.
# The share of zeros from which weights of many values are written as places and values.
_SPARSE_FROM = 0.1


def encode(values: np.ndarray) -> bytes:
    """`values` of any dtype and shape; neither of the two is written."""
    if values.size == 0:
        return bytes([_BYTES]) + _planes(_bits(values))
    bits = _bits(values)
    candidates = [bytes([_BYTES]) + _planes(bits)]
    half = _as_half(values)
    if half is not None:
        candidates.append(bytes([_HALF]) + _planes(half))
    book, indices = np.unique(_ordered(bits, values.dtype), return_inverse=True)
    if book.size <= min(_rans.MOST_SYMBOLS, max(1, values.size // 2)):
        # Values in order, so that neighbours in the codebook are neighbours in value.
        entries = _unordered(book, values.dtype)
        half = _as_half(entries.view(values.dtype))
        stored = bytes([half is not None]) + _planes(entries if half is None else half)
        indices = indices.reshape(_matrix(values.shape)).astype(np.int64)
        body = _indices(indices, book.size)
        candidates.append(bytes([_CODEBOOK]) + varint(book.size - 1) + stored + body)
    used = np.count_nonzero(bits)
    many = book.size > _context.MOST_SYMBOLS or book.size > used // 2
    if many and used < (1 - _SPARSE_FROM) * bits.size:
        places = (bits != 0).astype(np.int64)
        where = _indices(places.reshape(_matrix(values.shape)), 2)
        rest = encode(values.reshape(-1)[places == 1])
        candidates.append(bytes([_SPARSE]) + piece(where) + rest)
    return min(candidates, key=len)


def decode(content: bytes, dtype: np.dtype, shape: tuple) -> np.ndarray:
    """What was encoded; raises `Damaged` when `content` is nothing of that dtype and shape."""
    return _decode(Reader(content), dtype, math.prod(shape), _matrix(shape)).reshape(shape)


def _decode(reader: Reader, dtype, size: int, matrix, inner: bool = False) -> np.ndarray:
    kind = reader.byte()
    if (size == 0 and kind != _BYTES) or (inner and kind == _SPARSE):
        raise Damaged(f"{size} weights are coded in the way {kind}, which none is")
    unsigned = _unsigned(dtype)
    if kind == _BYTES:
        values = _read_planes(reader, size, unsigned).view(dtype)
    elif kind == _HALF:
        values = _from_half(_read_planes(reader, size, np.dtype(np.uint16)), dtype)
    elif kind == _SPARSE:
        where = Reader(reader.piece())
        used = _read_indices(where, matrix, 2).astype(bool)
        where.end()
        count = int(np.count_nonzero(used))
        rest = _decode(reader, dtype, count, (1, count), inner=True)
        values = np.zeros(size, dtype)
        values[used] = rest
    elif kind == _CODEBOOK:
        count = reader.number() + 1
        if count > max(1, size // 2):
            raise Damaged(f"a codebook of {count} entries for {size} weights")
        if reader.byte():
            book = _from_half(_read_planes(reader, count, np.dtype(np.uint16)), dtype)
        else:
            book = _read_planes(reader, count, unsigned).view(dtype)
        values = book[_read_indices(reader, matrix, count)]
    else:
        raise Damaged(f"a weight is coded in the unknown way {kind}")
    reader.end()
    return values


def _unsigned(dtype) -> np.dtype:
    return np.dtype(f"u{np.dtype(dtype).itemsize}")


def _bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).reshape(-1).view(_unsigned(values.dtype))


def _ordered(bits: np.ndarray, dtype) -> np.ndarray:
    """Bits whose order is that of the numbers they stand for: -0.0 before 0.0, NaN at the ends."""
    sign = bits.dtype.type(1) << bits.dtype.type(8 * bits.itemsize - 1)
    if np.dtype(dtype).kind in "ub":
        return bits
    if np.dtype(dtype).kind == "i":
        return bits ^ sign
    return np.where(bits & sign, ~bits, bits | sign)


def _unordered(keys: np.ndarray, dtype) -> np.ndarray:
    sign = keys.dtype.type(1) << keys.dtype.type(8 * keys.itemsize - 1)
    if np.dtype(dtype).kind in "ub":
        return keys
    if np.dtype(dtype).kind == "i":
        return keys ^ sign
    return np.where(keys & sign, keys ^ sign, ~keys)


def _as_half(values: np.ndarray):
    """The bits of `values` as float16, None where that changes any."""
    if values.dtype != np.float32:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        half = values.reshape(-1).astype(np.float16)
        same = np.array_equal(_bits(half.astype(np.float32)), _bits(values))
    return half.view(np.uint16) if same else None


def _from_half(bits: np.ndarray, dtype) -> np.ndarray:
    if dtype != np.float32:
        raise Damaged(f"weights of dtype {np.dtype(dtype).name} stored as float16")
    return bits.view(np.float16).astype(np.float32)


def _matrix(shape: tuple) -> tuple[int, int]:
    """Inputs by outputs; a depthwise kernel's last axes are one."""
    if len(shape) < 2:
        return 1, math.prod(shape)
    if shape[-1] == 1:
        return math.prod(shape[:-2]), shape[-2]
    return math.prod(shape[:-1]), shape[-1]


def _planes(bits: np.ndarray) -> bytes:
    """The first bytes of all numbers, then the second: exponents have an entropy of their own."""
    little = bits.astype(bits.dtype.newbyteorder("<"))
    out = b""
    for plane in little.view(np.uint8).reshape(-1, bits.itemsize).T:
        coded = _rans.encode(plane.astype(np.int64), int(plane.max(initial=0)) + 1)
        raw = plane.tobytes()
        if len(coded) + 1 < len(raw):
            out += bytes([1, int(plane.max())]) + coded
        else:
            out += b"\0" + raw
    return out


def _read_planes(reader: Reader, count: int, dtype) -> np.ndarray:
    planes = np.empty((count, dtype.itemsize), np.uint8)
    for place in range(dtype.itemsize):
        if reader.byte():
            alphabet = reader.byte() + 1
            planes[:, place] = _rans.decode(reader, count, alphabet)
        else:
            planes[:, place] = reader.array(np.uint8, count)
    little = planes.reshape(-1).view(dtype.newbyteorder("<"))
    return little.astype(dtype, copy=False)


def _indices(indices: np.ndarray, alphabet: int) -> bytes:
    """Indices `(rows, columns)` by the smallest of the five ways."""
    if alphabet == 1:
        return b""
    flat = indices.reshape(-1)
    zero = int(np.bincount(flat).argmax())
    candidates = [bytes([_SYMBOLS]) + _rans.encode(flat, alphabet)]
    if flat.size <= _MOST[_GAPS]:
        candidates.append(bytes([_GAPS]) + _gaps(flat, alphabet, zero))
    if alphabet <= _context.MOST_SYMBOLS and flat.size <= _MOST[_HUFFMAN]:
        candidates += [
            bytes([_HUFFMAN]) + _huffman.encode(flat, alphabet),
            bytes([_HUFFMAN_GAPS]) + _gaps(flat, alphabet, zero, _huffman),
        ]
    if _fits_context(indices.shape, alphabet):
        for apart in (0, 1):
            given = zero if apart else None
            coded = _context.encode(indices, alphabet, given)
            candidates.append(bytes([_CONTEXT]) + varint(zero + 1 if apart else 0) + coded)
    return min(candidates, key=len)


def _read_indices(reader: Reader, shape, alphabet: int) -> np.ndarray:
    size = shape[0] * shape[1]
    if alphabet == 1:
        return np.zeros(size, np.uint8)
    way = reader.byte()
    if size > _MOST.get(way, size):
        raise Damaged(f"{size:,} indices in the way {way}")
    if way in (_SYMBOLS, _HUFFMAN):
        return (_rans if way == _SYMBOLS else _huffman).decode(reader, size, alphabet)
    if way in (_GAPS, _HUFFMAN_GAPS):
        return _read_gaps(reader, size, alphabet, _rans if way == _GAPS else _huffman)
    if way != _CONTEXT:
        raise Damaged(f"indices are coded in the unknown way {way}")
    if not _fits_context(shape, alphabet):
        raise Damaged(f"{size:,} indices of {alphabet:,} in context")
    zero = reader.number()
    if zero > alphabet:
        raise Damaged(f"the zero is entry {zero - 1} of {alphabet}")
    content = reader.take(reader.left)
    indices = _context.decode(content, shape, alphabet, zero - 1 if zero else None)
    return indices.reshape(-1)


def _fits_context(shape, alphabet: int) -> bool:
    """Whether indices are few enough for contexts, of which there are many for each column."""
    size, columns = shape[0] * shape[1], shape[1]
    few = alphabet <= _context.MOST_SYMBOLS
    return few and size <= _MOST[_CONTEXT] and columns <= _MOST_COLUMNS


def _gaps(flat: np.ndarray, alphabet: int, zero: int, coder=_rans) -> bytes:
    """Runs of the zero before each other index, as in Deep Compression, and these."""
    places = np.flatnonzero(flat != zero)
    runs = np.diff(places, prepend=-1) - 1
    # A run that is too long is cut: the widest gap stands for that many zeros, and no weight.
    cuts = runs // _WIDEST_GAP
    gaps = np.full(places.size + int(cuts.sum()), _WIDEST_GAP, np.int64)
    gaps[np.arange(places.size) + np.cumsum(cuts)] = runs % _WIDEST_GAP
    symbols = flat[places]
    symbols = symbols - (symbols > zero)
    most = int(gaps.max(initial=0))
    return (
        varint(zero)
        + varint(gaps.size)
        + bytes([most])
        + piece(coder.encode(gaps, most + 1))
        + coder.encode(symbols, alphabet - 1)
    )


def _read_gaps(reader: Reader, size: int, alphabet: int, coder=_rans) -> np.ndarray:
    zero, count, most = reader.number(), reader.number(), reader.byte()
    if zero >= alphabet or count > size or alphabet > _rans.MOST_SYMBOLS:
        raise Damaged(f"{count} gaps in {size} weights, the zero entry {zero} of {alphabet}")
    inner = Reader(reader.piece())
    gaps = coder.decode(inner, count, most + 1).astype(np.int64)
    inner.end()
    weight = gaps < _WIDEST_GAP
    places = np.cumsum(gaps + weight)[weight] - 1
    if places.size and places[-1] >= size:
        raise Damaged("a gap leads beyond the last weight")
    symbols = coder.decode(reader, places.size, alphabet - 1).astype(np.int64)
    flat = np.full(size, zero, np.uint16)
    flat[places] = symbols + (symbols >= zero)
    return flat
