"""Embeddings on disk in a fraction of their bytes: a low-rank basis and rounded coordinates."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from keras_robust.analysis._variance import check_matrix
from keras_robust.transfer import _container
from keras_robust.transfer._projection import Projection, low_dimensional_embedding

BITS = (2, 4, 8, 16, 32)


@dataclasses.dataclass(frozen=True)
class Stored:
    """A file of embeddings as it lies on disk.

    Attributes:
        path: of the file.
        bytes: size of the file, all of it.
        original_bytes: of the embeddings as float32.
        basis_bytes: of the projection before packing, 0 where it is kept in a file of its own.
        inputs, features, rank: number of embeddings, of their features, and of coordinates.
        bits: of a coordinate before packing.
        error: `||z - z'|| / ||z||` of embeddings `z` and what is read back `z'`.
    """

    path: Path
    bytes: int
    original_bytes: int
    basis_bytes: int
    inputs: int
    features: int
    rank: int
    bits: int
    error: float

    @property
    def factor(self) -> float:
        """How many times smaller the file is than the embeddings as float32."""
        return self.original_bytes / self.bytes

    def __str__(self) -> str:
        basis = "with its basis" if self.basis_bytes else "basis kept elsewhere"
        return (
            f"{self.inputs:,} x {self.features:,} embeddings, {self.original_bytes:,} bytes as "
            f"float32: {self.bytes:,} bytes on disk ({basis}), {self.factor:.0f} times smaller, "
            f"at {self.rank} coordinates of {self.bits} bits and a relative error of "
            f"{self.error:.3f}"
        )


def save_embeddings(
    path, z, rank: int | None = None, *, bits: int = 8, codec: str = "auto", projection=None
) -> Stored:
    """Writes embeddings as `rank` coordinates of `bits` bits each, packed, and their basis.

    Coordinates are rounded to multiples of one step for all, the one of least squared error; at
    few bits it is better to cut the largest off than to round all others more. A coordinate that
    varies little takes few different values then, and packs to fewer bits.

    Sanyal et al. 2018, https://arxiv.org/abs/1804.07090, shrink representations 400 times;
    `factor` counts the bytes on disk.

    Args:
        path: of the file; a failure leaves what was there.
        z: `(n, features)` embeddings, floating point.
        rank: coordinates kept, the principal ones of `z`; with `projection` None for all of its.
        bits: 2, 4, 8 or 16, or 32 for float32 coordinates without rounding.
        codec: how coordinates are packed: "zlib", "lzma", "none", or "auto" for the smallest.
        projection: a `Projection`, fitted once for many files. It is not in this file then:
            keep it with `save_projection`, and hand it to `load_embeddings`.

    Returns:
        `Stored`; printed, it says the factor.

    Raises:
        TypeError, ValueError: wrong inputs, or a path that cannot be written.

    >>> z = np.outer(np.arange(1000.0), np.ones(64))
    >>> stored = save_embeddings("z.kre", z, rank=1)
    >>> stored.factor > 100, load_embeddings("z.kre").shape
    (True, (1000, 64))
    """
    z = check_matrix(z)
    if isinstance(bits, bool) or bits not in BITS:
        raise ValueError(f"`bits` must be one of {BITS}, got {bits!r}.")
    if codec not in (*_container.CODECS, "auto"):
        raise ValueError(f"`codec` must be one of {(*_container.CODECS, 'auto')}, got {codec!r}.")
    shared = projection is not None
    if shared:
        _check_projection(projection)
        projection = projection if rank is None else projection.first(rank)
    elif rank is None:
        raise ValueError("`rank` is missing. Say how many coordinates to keep, or `projection`.")
    else:
        projection = low_dimensional_embedding(z, rank)
    arrays = _rounded(projection(z), bits)
    if not shared:
        arrays |= {"basis": projection.basis, "mean": projection.mean}
    about = {
        "kind": "embeddings",
        "inputs": len(z),
        "bits": bits,
        "rank": projection.k,
        "projection": fingerprint(projection),
    }
    _container.write(path, about, arrays, codec)
    again = load_embeddings(path, projection if shared else None)
    size = float(np.linalg.norm(z))
    return Stored(
        path=Path(path),
        bytes=Path(path).stat().st_size,
        original_bytes=4 * z.size,
        basis_bytes=0 if shared else projection.basis.nbytes + projection.mean.nbytes,
        inputs=len(z),
        features=z.shape[1],
        rank=projection.k,
        bits=bits,
        error=float(np.linalg.norm(again - z)) / size if size else 0.0,
    )


def load_embeddings(path, projection=None, *, coordinates: bool = False) -> np.ndarray:
    """Reads what `save_embeddings` wrote.

    Args:
        path: of the file.
        projection: the `Projection` that it was written with, for a file without its basis.
        coordinates: return these, `(n, rank)`, rather than the embeddings; needs no basis.

    Returns:
        float32 `(n, features)`.

    Raises:
        TypeError, ValueError: no such file, another one, a damaged one, or another projection.
    """
    about, arrays = _container.read(path, "embeddings")
    values = _restored(arrays, about["bits"])
    if coordinates:
        return values
    if "basis" in arrays:
        projection = Projection("pca", arrays["mean"], arrays["basis"], float("nan"))
    elif projection is None:
        raise ValueError(
            f"`projection` is missing: {str(path)!r} was written without its basis. Give the one "
            "it was written with, kr.transfer.load_projection(...)."
        )
    else:
        _check_projection(projection)
        if projection.k > about["rank"]:
            projection = projection.first(about["rank"])
    if fingerprint(projection) != about["projection"]:
        raise ValueError(f"`projection` is not the one that {str(path)!r} was written with.")
    return projection.back(values)


def save_projection(path, projection) -> int:
    """Writes a `Projection`, for many files of embeddings; returns the bytes on disk.

    Raises:
        TypeError, ValueError: no projection, or a path that cannot be written.
    """
    _check_projection(projection)
    about = {"kind": "a projection", "method": projection.method, "kept": projection.kept}
    about["kept"] = None if np.isnan(projection.kept) else projection.kept
    arrays = {"basis": projection.basis, "mean": projection.mean}
    _container.write(path, about, arrays, "auto")
    return Path(path).stat().st_size


def load_projection(path) -> Projection:
    """Reads what `save_projection` wrote.

    Raises:
        ValueError: no such file, another one, or a damaged one.
    """
    about, arrays = _container.read(path, "a projection")
    kept = float("nan") if about["kept"] is None else about["kept"]
    return Projection(about["method"], arrays["mean"], arrays["basis"], kept)


def fingerprint(projection) -> str:
    """16 hexadecimal digits that tell projections apart."""
    digest = hashlib.sha256(np.ascontiguousarray(projection.mean, "<f4").tobytes())
    digest.update(np.ascontiguousarray(projection.basis, "<f4").tobytes())
    return digest.hexdigest()[:16]


def _rounded(values, bits: int) -> dict:
    """Coordinate by coordinate, so that what is alike lies together."""
    if bits == 32:
        return {"values": values.T}
    limit = 2 ** (bits - 1) - 1
    step = _best_step(values, limit)
    whole = _levels(values, step, limit) + limit
    whole = whole.T.astype(np.uint16 if bits == 16 else np.uint8)
    return {"values": whole, "step": np.reshape(step, 1)}


def _best_step(values, limit: int) -> np.float32:
    """Of steps that reach the largest value, or cut it off, the one with the least error."""
    widest = np.abs(values).max() / limit
    if not widest:
        return np.float32(1.0)
    steps = np.float32(widest) * np.geomspace(1.0, 0.2, 17, dtype=np.float32)
    errors = [np.square(_levels(values, s, limit) * s - values).sum() for s in steps]
    return steps[int(np.argmin(errors))]


def _levels(values, step, limit: int) -> np.ndarray:
    return np.rint(values / step).clip(-limit, limit)


def _restored(arrays: dict, bits: int) -> np.ndarray:
    values = arrays["values"].T
    if bits < 32:
        limit = 2 ** (bits - 1) - 1
        values = arrays["step"][0] * (values.astype(np.float32) - limit)
    return np.ascontiguousarray(values, np.float32)


def _check_projection(projection) -> None:
    if not isinstance(projection, Projection):
        raise TypeError(
            "`projection` must come from kr.transfer.low_dimensional_embedding or "
            f"load_projection, got {type(projection).__name__}."
        )
