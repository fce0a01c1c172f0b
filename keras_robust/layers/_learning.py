"""What W and b learn from one batch: closed-form gradients, and steps that cannot diverge.

Rows: with z = a + b and e = z W - z, the projection loss is the mean of ||e||^2 over the batch,
and its gradients are 2 z^T e / n for W and 2 mean(e) (W - I)^T for b.
"""

import tensorflow as tf

_TINY = 1e-20


def residual(z, w):
    """`e = z W - z`, `(n, m)`; `w` is a matrix or its two factors."""
    if isinstance(w, tuple):
        return tf.matmul(tf.matmul(z, w[0]), w[1], transpose_b=True) - z
    return tf.matmul(z, w) - z


def statistics(z, e, w) -> list:
    """Sums over this replica's batch, which add up over replicas, for `step`.

    The gradient of W or of its factors without its factor 2 / n, the sum of e, the squared
    length of z, and n.
    """
    if isinstance(w, tuple):
        u, v = w
        sums = [
            tf.matmul(z, tf.matmul(e, v), transpose_a=True),
            tf.matmul(e, tf.matmul(z, u), transpose_a=True),
        ]
    else:
        sums = [tf.matmul(z, e, transpose_a=True)]
    count = tf.cast(tf.shape(z)[0], tf.float32)
    return [*sums, tf.reduce_sum(e, axis=0), tf.reduce_sum(tf.square(z)), count]


def step(w, b, sums, rate, bias_rate):
    """W (or its factors) and b after one step on the gathered `sums`.

    The curvature along any direction of W is at most twice the mean of ||z||^2, so a step of
    `rate` over that mean converges for every `rate` below 1, whatever the scale of the
    activations. The step of b is at most the one that minimises the loss along its gradient.
    """
    *products, error, square, count = sums
    count = tf.maximum(count, 1.0)
    scale = 2.0 * rate / tf.maximum(square, _TINY)  # (2 / n) / (square / n)
    if isinstance(w, tuple):
        u, v = w
        # At the solution both factors have length 1; before it they may be longer.
        scale /= tf.maximum(1.0, tf.maximum(_longest(u), _longest(v)))
        new = (u - scale * products[0], v - scale * products[1])
    else:
        new = w - scale * products[0]
    gradient = 2.0 * _times_transposed(error / count, w)
    slope = tf.reduce_sum(tf.square(gradient))
    curvature = 2.0 * tf.reduce_sum(tf.square(residual(gradient[None], w)))
    best = slope / tf.maximum(curvature, _TINY)
    return new, b - tf.minimum(bias_rate, best) * gradient


def _times_transposed(e, w):
    """`e (W - I)^T`, `(m,)`."""
    row = e[None]
    if isinstance(w, tuple):
        return (tf.matmul(tf.matmul(row, w[1]), w[0], transpose_b=True) - row)[0]
    return (tf.matmul(row, w, transpose_b=True) - row)[0]


def _longest(factor):
    """A bound on the squared spectral norm of `(m, r)`: that of its Gram matrix's rows."""
    gram = tf.abs(tf.matmul(factor, factor, transpose_a=True))
    return tf.reduce_max(tf.reduce_sum(gram, axis=1))
