"""The nearest matrix of low rank: exactly, by sampled columns, and by several such samples.

Each function returns two factors, `(m, r)` and `(r, m)`, whose product is the projection: the
product costs m^2 r, and whoever sends the projection to other devices sends 2 m r numbers.
Bases come from QR and from the eigenvectors of small Gram matrices instead of `tf.linalg.svd`,
which XLA compiles into something a hundred times slower.
"""

import tensorflow as tf

from keras_robust._seed import uniform


def exact(w, rank: int):
    """The truncated singular value decomposition of `w`, `(m, m)`.

    Through the eigenvectors of `w^T w`: exact up to rounding, unless the singular values around
    the cut differ by less than about 1e-3 of the largest.
    """
    right = _leading(tf.matmul(w, w, transpose_a=True), rank)
    return tf.matmul(w, right), tf.transpose(right)


def nystrom(w, rank: int, columns: int, seed):
    """`w` projected on the leading directions of some of its columns.

    Williams and Seeger 2001, in the form for any matrix: `Q Q^T w` with `Q` the first `rank`
    left singular vectors of `columns` columns. Finding `Q` costs m l^2.

    Args:
        w: `(m, m)`.
        rank: r, of the result.
        columns: l, rank <= l <= m, drawn without replacement.
        seed: int32 `(2,)`.
    """
    basis = _bases(w, rank, columns, 1, seed)[0]
    return basis, tf.matmul(basis, w, transpose_a=True)


def ensemble(w, rank: int, columns: int, draws: int, seed):
    """The average of `draws` Nystrom projections, cut to `rank` again.

    Kumar, Mohri and Talwalkar 2009. The average of p projections of rank r has rank up to p r;
    it is cut within the span of their bases, at a cost of m (p r)^2.
    """
    bases = _bases(w, rank, columns, draws, seed)
    side_by_side = tf.reshape(tf.transpose(bases, [1, 0, 2]), [w.shape[0], draws * rank])
    span, mixing = tf.linalg.qr(side_by_side)
    inside = tf.matmul(mixing, tf.matmul(side_by_side, w, transpose_a=True)) / draws
    left = _leading(tf.matmul(inside, inside, transpose_b=True), rank)
    return tf.matmul(span, left), tf.matmul(left, inside, transpose_a=True)


def _bases(w, rank, columns, draws, seed):
    """`(draws, m, rank)`: leading left singular vectors of each draw of columns."""
    chosen = _columns(w, columns, draws, seed)
    sampled = tf.transpose(tf.gather(tf.transpose(w), chosen), [0, 2, 1])
    q, r = tf.linalg.qr(sampled)
    return tf.matmul(q, _leading(tf.matmul(r, r, transpose_b=True), rank))


def _columns(w, columns, draws, seed):
    """`(draws, columns)` int32, without replacement, in proportion to squared lengths.

    Frieze, Kannan and Vempala 2004. Uniform draws miss what a matrix is about when most of its
    columns are zero, as they are where many units are dead.
    """
    lengths = tf.reduce_sum(tf.square(w), axis=0)
    gumbel = -tf.math.log(-tf.math.log(uniform([draws, w.shape[0]], seed)))
    return tf.math.top_k(tf.math.log(lengths + 1e-30) + gumbel, columns).indices


def _leading(symmetric, count):
    """The eigenvectors of the `count` largest eigenvalues, as columns, largest first."""
    return tf.reverse(tf.linalg.eigh(symmetric)[1][..., -count:], [-1])
