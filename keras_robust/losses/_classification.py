"""What an attack climbs: cross-entropy, the logit margin and the difference of logits ratio."""

import tensorflow as tf


def cross_entropy(labels, logits) -> tf.Tensor:
    """Cross-entropy of the softmax of `logits`, in nats.

    Args:
        labels: `(batch,)` int in `[0, classes)`, or `(batch, classes)` one-hot or soft.
        logits: `(batch, classes)`, any floating dtype; computed in at least float32.

    Returns:
        `(batch,)`, >= 0 for integer and one-hot labels.

    >>> round(float(cross_entropy([1], [[0.0, 0.0]])[0]), 4)
    0.6931
    """
    labels, logits = _labels(labels), _wide(logits)
    if labels.shape.rank == 1:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(labels, tf.int32), logits)
    return tf.nn.softmax_cross_entropy_with_logits(tf.cast(labels, logits.dtype), logits)


def log_odds(labels, logits) -> tf.Tensor:
    """Log of the odds against the label, `log((1 - p) / p)`: cross-entropy before its softplus.

    For integer labels the gradient of the cross-entropy is this one's times a positive number
    for each example, `1 - p`, which float32 rounds to zero from a margin of 17 on. An attack
    that follows the direction alone is the same attack with either, but confident examples
    hide from the cross-entropy and not from this.

    Args:
        labels: `(batch,)` int, or vectors `(batch, classes)`: one-hot ones, with a 1, count as
            their class number, soft ones get their cross-entropy, since for these there is no
            such form.
        logits: `(batch, classes)`.

    Returns:
        `(batch,)`, in nats.

    >>> log_odds([0], [[0.0, 0.0]]).numpy().tolist()
    [0.0]
    """
    labels, logits = _labels(labels), _wide(logits)
    own, mask = _own(labels, logits)
    odds = tf.reduce_logsumexp(tf.where(mask, logits.dtype.min, logits), axis=-1) - own
    if labels.shape.rank == 1:
        return odds
    # Row by row: in a graph, one-hot labels are still vectors.
    one_hot = tf.equal(tf.reduce_max(labels, axis=-1), 1)
    return tf.where(one_hot, odds, cross_entropy(labels, logits))


def margin(labels, logits) -> tf.Tensor:
    """Largest other logit minus the label's: positive exactly when misclassified.

    The loss of Carlini and Wagner 2017, https://arxiv.org/abs/1608.04644, without its hinge.

    Args:
        labels: `(batch,)` int, or `(batch, classes)`, whose largest entry counts.
        logits: `(batch, classes)`.

    Returns:
        `(batch,)`, in the logits' units.

    >>> margin([0, 0], [[3.0, 1.0], [3.0, 4.0]]).numpy().tolist()
    [-2.0, 1.0]
    """
    logits = _wide(logits)
    own, mask = _own(labels, logits)
    return tf.reduce_max(tf.where(mask, logits.dtype.min, logits), axis=-1) - own


def dlr(labels, logits) -> tf.Tensor:
    """Difference of logits ratio of Croce and Hein 2020, https://arxiv.org/abs/2003.01690, eq. 6.

    The margin over the distance between the first and the third largest logit: invariant to
    shift and scale of the logits, so that saturated ones do not hide the gradient.

    Args:
        labels: `(batch,)` int, or `(batch, classes)`, whose largest entry counts.
        logits: `(batch, classes)` with at least 3 classes.

    Returns:
        `(batch,)`, positive exactly when misclassified. At least -1, and at most 1 while the
        label is among the three largest; it grows the further it falls below them.

    Raises:
        ValueError: fewer than 3 classes.

    >>> dlr([0], [[4.0, 2.0, 0.0]]).numpy().tolist()
    [-0.5]
    """
    logits = _wide(logits)
    if logits.shape[-1] is not None and logits.shape[-1] < 3:
        raise ValueError(
            f'The "dlr" loss needs at least 3 classes, got {logits.shape[-1]}. Use "margin".'
        )
    top = tf.math.top_k(logits, 3).values
    return margin(labels, logits) / (top[:, 0] - top[:, 2] + 1e-12)


def kl_divergence(reference_logits, logits) -> tf.Tensor:
    """KL(softmax(reference_logits) || softmax(logits)), in nats.

    Args:
        reference_logits: `(batch, classes)`.
        logits: `(batch, classes)`.

    Returns:
        `(batch,)`, >= 0 up to rounding, and 0 for equal arguments.

    >>> kl_divergence([[0.0, 0.0]], [[0.0, 0.0]]).numpy().tolist()
    [0.0]
    """
    log_p = tf.nn.log_softmax(_wide(reference_logits))
    log_q = tf.nn.log_softmax(_wide(logits))
    return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=-1)


def _wide(logits) -> tf.Tensor:
    """Float64 stays, everything narrower than float32 becomes float32."""
    logits = tf.convert_to_tensor(logits)
    return logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32)


def _labels(labels) -> tf.Tensor:
    """Labels of shape `(batch, 1)`, as tf_keras hands them to a compiled loss, as `(batch,)`."""
    labels = tf.convert_to_tensor(labels)
    column = labels.shape.rank == 2 and labels.shape[-1] == 1
    return tf.squeeze(labels, axis=-1) if column else labels


def _own(labels, logits):
    """The label's logit, `(batch,)`, and its place as a mask, `(batch, classes)`."""
    labels = _labels(labels)
    if labels.shape.rank == 2:
        labels = tf.argmax(labels, axis=-1, output_type=tf.int32)
    mask = tf.one_hot(
        tf.cast(labels, tf.int32), tf.shape(logits)[-1], on_value=True, off_value=False
    )
    return tf.reduce_sum(tf.where(mask, logits, tf.zeros_like(logits)), axis=-1), mask
