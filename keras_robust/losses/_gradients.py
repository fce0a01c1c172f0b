"""What a loss says of gradients with respect to the inputs."""

import tensorflow as tf


def gradient_penalty(gradient, norm: str = "l2") -> tf.Tensor:
    """The size of an input gradient: its l2 norm squared, or its l1 norm.

    Squared l2 is the double backpropagation of Drucker and LeCun 1992 and the input gradient
    regularisation of Ross and Doshi-Velez 2018, https://arxiv.org/abs/1711.09404. The l1 norm
    times eps is how much the linearised loss rises in a linf ball: Simon-Gabriel et al. 2019,
    https://arxiv.org/abs/1802.01421.

    Args:
        gradient: `(batch, ...)`.
        norm: "l2" or "l1".

    Returns:
        `(batch,)`, >= 0.

    Raises:
        ValueError: another `norm`.

    >>> gradient_penalty(tf.constant([[3.0, -4.0]])).numpy().tolist()
    [25.0]
    >>> gradient_penalty(tf.constant([[3.0, -4.0]]), "l1").numpy().tolist()
    [7.0]
    """
    if norm not in ("l2", "l1"):
        raise ValueError(f"`norm` must be 'l2' or 'l1', got norm={norm!r}.")
    values = tf.square(gradient) if norm == "l2" else tf.abs(gradient)
    return tf.reduce_sum(values, axis=_axes(gradient))


def misalignment(gradient, other) -> tf.Tensor:
    """One minus the cosine between two gradients of each example.

    Andriushchenko and Flammarion 2020, https://arxiv.org/abs/2007.02617, eq. 4: where the
    gradients at two points of the ball disagree, a single step misses the worst example.

    Args:
        gradient: `(batch, ...)`.
        other: `(batch, ...)`.

    Returns:
        `(batch,)` in `[0, 2]`, and 1 where a gradient vanishes.

    >>> misalignment(tf.constant([[1.0, 0.0]]), tf.constant([[0.0, 2.0]])).numpy().tolist()
    [1.0]
    """
    product = unit_rows(gradient) * unit_rows(other)
    return 1.0 - tf.reduce_sum(product, axis=_axes(gradient))


def unit_rows(gradient) -> tf.Tensor:
    """Each row at l2 length 1; a zero row stays zero, and a tiny one does not underflow.

    >>> unit_rows(tf.constant([[3e-30, 4e-30], [0.0, 0.0]])).numpy().round(4).tolist()
    [[0.6..., 0.8...], [0.0, 0.0]]
    """
    largest = tf.reduce_max(tf.abs(gradient), axis=_axes(gradient), keepdims=True)
    # The length does not depend on this scale, so that no gradient need flow through it.
    gradient = tf.math.divide_no_nan(gradient, tf.stop_gradient(largest))
    square = tf.reduce_sum(tf.square(gradient), axis=_axes(gradient), keepdims=True)
    # Zero rows apart: the gradient of a root at zero is infinite.
    length = tf.sqrt(tf.where(square > 0, square, tf.ones_like(square)))
    return gradient / length


def _axes(gradient) -> list[int]:
    return list(range(1, gradient.shape.rank))
