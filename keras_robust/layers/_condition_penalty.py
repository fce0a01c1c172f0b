"""A regularizer that keeps the singular values of a kernel together."""

import math
import numbers

import tensorflow as tf

from keras_robust._keras import keras
from keras_robust.layers._counterpart import PACKAGE


def spread(kernel) -> tf.Tensor:
    """How far the squared singular values of a kernel are apart, relative to their mean.

    With `s` the k singular values of the kernel as a matrix (all axes but the last are rows, k
    is the smaller side), the variance of `s^2` divided by its squared mean, computed as
    `k ||G||^2 / tr(G)^2 - 1` with G the smaller of `W^T W` and `W W^T`: no decomposition, so it
    is smooth and runs in XLA. It is 0 when all singular values are equal, at most k - 1 (rank
    one), and the same for any multiple of the kernel. With c the spread, the condition number is
    at most `sqrt((1 + r) / (1 - r))`, `r = sqrt(c (k - 1))`, where r < 1.

    Args:
        kernel: floating point `(..., filters)`, at least two axes.

    Returns:
        A scalar, >= 0, float32 (float64 for a float64 kernel); 0 for a kernel of zeros.

    >>> round(float(spread(tf.constant([[3.0, 0.0], [0.0, 1.0]]))), 2)
    0.64
    """
    kernel = tf.convert_to_tensor(kernel)
    if kernel.dtype not in (tf.float32, tf.float64):
        kernel = tf.cast(kernel, tf.float32)
    matrix = tf.reshape(kernel, [-1, kernel.shape[-1]])
    wide = matrix.shape[0] < matrix.shape[1]
    gram = tf.matmul(matrix, matrix, transpose_a=not wide, transpose_b=wide)
    mean = tf.linalg.trace(gram) / gram.shape[0]
    # Divided first: the squares of small weights would underflow.
    scaled = tf.math.divide_no_nan(gram, mean)
    away = scaled - tf.cast(mean > 0, gram.dtype) * tf.eye(gram.shape[0], dtype=gram.dtype)
    return tf.reduce_sum(tf.square(away)) / gram.shape[0]


class Penalty:
    """What `ConditionPenalty` is in either Keras; see there."""

    keras = None

    def __init__(self, weight=1e-3):
        if isinstance(weight, bool) or not isinstance(weight, numbers.Real):
            raise TypeError(f"`weight` must be a number >= 0, got {weight!r}.")
        if not 0 <= weight < math.inf:
            raise ValueError(f"`weight` must be a finite number >= 0, got {weight!r}.")
        self.weight = float(weight)

    def __call__(self, x):
        shape = tuple(x.shape)
        if len(shape) < 2:
            raise ValueError(
                f"ConditionPenalty is for kernels of at least two axes, got shape {shape}. Give it "
                "as kernel_regularizer, not as bias_regularizer."
            )
        return self.weight * spread(x)

    def get_config(self):
        return {"weight": self.weight}


@keras.saving.register_keras_serializable(PACKAGE)
class ConditionPenalty(Penalty, keras.regularizers.Regularizer):
    """A kernel regularizer that keeps the condition number of a kernel small.

    Networks of low-rank factors tend to lose adversarial robustness because the condition
    numbers of the factors grow without bound (Savostianova et al. 2023,
    https://arxiv.org/abs/2306.01485; Schotthoefer et al. 2025,
    https://arxiv.org/abs/2505.08022). It adds `weight` times the variance of the squared
    singular values over their squared mean, which is `||G / mean(s^2) - I||^2 / k` of the
    smaller Gram matrix G: their distance to an orthonormal kernel of any scale. So it does not
    work as a weight decay, needs no SVD in the training step, and is zero exactly where all
    singular values are equal. The condition number of a product of factors is at most the
    product of theirs.

    Args:
        weight: of the penalty in the loss, >= 0.

    Raises:
        TypeError, ValueError: `weight` out of its range; when called, a bias.

    >>> layer = keras.layers.Dense(3, kernel_regularizer=kr.layers.ConditionPenalty(0.01))
    >>> _ = layer(tf.ones([1, 4]))
    >>> len(layer.losses)
    1
    """

    keras = keras
