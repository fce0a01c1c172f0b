"""Embeddings in a few dimensions: principal components, a layer's own subspace, or random ones."""

import dataclasses
import numbers

import numpy as np

from keras_robust.analysis._variance import check_matrix
from keras_robust.layers import LowRankVirtual

METHODS = ("pca", "subspace", "random")


@dataclasses.dataclass(frozen=True, eq=False)
class Projection:
    """An affine map to `k` orthonormal directions: `(z - mean) @ basis`.

    Attributes:
        method: "pca", "subspace" or "random".
        mean: `(features,)` float32 of the embeddings that it was fitted on.
        basis: `(features, k)` float32, orthonormal columns.
        kept: share of the fitted embeddings' variance that the directions hold, in [0, 1].
    """

    method: str
    mean: np.ndarray
    basis: np.ndarray
    kept: float

    @property
    def k(self) -> int:
        """Number of directions."""
        return self.basis.shape[1]

    def first(self, k: int) -> "Projection":
        """The projection to the first `k` of the directions; `kept` is then not known, NaN."""
        k = _check_k(k, self.k, "the directions of this projection")
        return dataclasses.replace(self, basis=self.basis[:, :k], kept=float("nan"))

    def __call__(self, z) -> np.ndarray:
        """Coordinates `(n, k)` float32 of embeddings `(n, features)`."""
        z = check_matrix(z)
        if z.shape[1] != len(self.mean):
            raise ValueError(
                f"`z` has {z.shape[1]} features, but the projection was fitted on "
                f"{len(self.mean)}. Take embeddings of the same layer."
            )
        return ((z.astype(np.float32) - self.mean) @ self.basis).astype(np.float32)

    def back(self, coordinates) -> np.ndarray:
        """The embeddings `(n, features)` float32 that have these coordinates `(n, k)`."""
        return (np.asarray(coordinates, np.float32) @ self.basis.T + self.mean).astype(np.float32)


def low_dimensional_embedding(
    z, k: int, method: str = "pca", *, subspace=None, seed: int = 0
) -> Projection:
    """Fits a projection to `k` dimensions on embeddings; call it on these and on others.

    Sanyal et al. 2018, https://arxiv.org/abs/1804.07090, tables 3 and 4.

    Directions are sorted: `fitted.first(j)` is the projection to `j < k` of them that this
    function would give for `j`, with "random" a random one too.

    Args:
        z: `(n, features)` embeddings to fit on: those of the training set.
        k: dimensions, at most the features; with "pca" at most the inputs, with "subspace" at
            most its rank.
        method: "pca", the directions of most variance; "subspace", those of most variance inside
            `subspace`; "random", uniformly drawn orthonormal directions.
        subspace: with "subspace", a `kr.layers.LowRankVirtual` that was trained on this
            representation, or a matrix `(features, ...)` whose columns span the subspace. Of the
            layer, whose `W^T (a + b)` is close to `a + b`, it is the range of `W^T`.
        seed: of "random".

    Returns:
        `Projection`.

    Raises:
        TypeError, ValueError: wrong inputs; scipy's `LinAlgError` for what has no spectrum.

    >>> z = np.array([[3.0, 0.0, 1.0], [-3.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, -1.0, 1.0]])
    >>> fitted = low_dimensional_embedding(z, 1)
    >>> np.abs(fitted(z)).round(3)[:, 0].tolist(), round(fitted.kept, 3)
    ([3.0, 3.0, 0.0, 0.0], 0.9)
    """
    z = check_matrix(z)
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {METHODS}, got {method!r}.")
    if (subspace is None) == (method == "subspace"):
        raise ValueError(
            f"`subspace` goes with method='subspace' alone, got method={method!r} and subspace "
            f"{'None' if subspace is None else 'of type ' + type(subspace).__name__}."
        )
    mean = z.mean(axis=0, dtype=np.float64)
    centred = z - mean
    if method == "random":
        k = _check_k(k, z.shape[1], "the features")
        # Column by column from one stream: fewer directions are the first of more.
        drawn = np.random.default_rng(seed).standard_normal((k, z.shape[1])).T
        basis = np.linalg.qr(drawn)[0]
    elif method == "pca":
        k = _check_k(k, min(z.shape), "the features, and the inputs")
        basis = _principal(centred, k)
    else:
        spanned = _spanned(subspace, z.shape[1])
        k = _check_k(k, spanned.shape[1], "the rank of `subspace`")
        basis = spanned @ _principal(centred @ spanned, k, sufficient=False)
    total = float(np.sum(np.square(centred)))
    kept = float(np.sum(np.square(centred @ basis))) / total if total > 0 else 1.0
    return Projection(
        method, mean.astype(np.float32), basis.astype(np.float32), min(1.0, max(0.0, kept))
    )


def _principal(centred, k: int, sufficient: bool = True) -> np.ndarray:
    """`(features, k)` directions of most variance, from the smaller of the two Gram matrices."""
    from scipy.linalg import eigh

    rows, features = centred.shape
    if features <= rows or not sufficient:
        values = eigh(centred.T @ centred, subset_by_index=[features - k, features - 1])[1]
        return _signed(values[:, ::-1])
    vectors = eigh(centred @ centred.T, subset_by_index=[rows - k, rows - 1])[1][:, ::-1]
    # Centred rows have at least one direction too few: QR fills it with any other.
    return _signed(np.linalg.qr(centred.T @ vectors)[0])


def _signed(basis) -> np.ndarray:
    """Signs that do not depend on the machine: the largest entry of a direction is positive."""
    largest = np.take_along_axis(basis, np.abs(basis).argmax(axis=0)[None], axis=0)
    return basis * np.where(largest < 0, -1.0, 1.0)


def _spanned(subspace, features: int) -> np.ndarray:
    """An orthonormal basis of what `subspace` spans."""
    matrix = _matrix(subspace)
    if matrix.ndim != 2 or matrix.shape[0] != features or not np.all(np.isfinite(matrix)):
        raise ValueError(
            f"`subspace` must be a finite matrix with a row for each of the {features} features, "
            f"got shape {matrix.shape}. Is it the layer that the embeddings come from?"
        )
    left, values, _ = np.linalg.svd(matrix, full_matrices=False)
    rank = int(np.sum(values > 1e-5 * values.max(initial=0.0)))
    if not rank:
        raise ValueError("`subspace` is zero: it spans nothing.")
    return left[:, :rank]


def _matrix(subspace) -> np.ndarray:
    if not isinstance(subspace, LowRankVirtual):
        return np.asarray(subspace, np.float64)
    if not subspace.built:
        raise ValueError(f"`subspace` is the layer {subspace.name!r}, which has not been built.")
    # The leading part: between two of its projections W is of full rank.
    w = np.asarray(subspace.w, np.float64)
    if not w.any() or not 4 * subspace.rank < len(w):
        _, values, right = np.linalg.svd(w)
        return right[: subspace.rank].T * values[: subspace.rank]
    from scipy.sparse.linalg import svds

    _, values, right = svds(w, k=subspace.rank, v0=np.ones(len(w)))
    return right.T * values


def _check_k(k, largest: int, what: str) -> int:
    if isinstance(k, bool) or not isinstance(k, numbers.Integral) or not 1 <= k <= largest:
        raise ValueError(f"`k` must be a whole number in [1, {largest}], {what}, got {k!r}.")
    return int(k)
