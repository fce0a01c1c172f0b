"""Attacks that try one wrong class after the other: which classes, and what to climb."""

import tensorflow as tf

from keras_robust import losses


def likely_wrong(logits, labels, count) -> tf.Tensor:
    """The `count` most likely classes other than the label, most likely first.

    Args:
        logits: `(batch, classes)`.
        labels: `(batch,)` int32.
        count: how many; all wrong classes when there are fewer.

    Returns:
        int32, `(batch, min(count, classes - 1))`.

    >>> likely_wrong(tf.constant([[3.0, 1.0, 2.0]]), tf.constant([0]), 9).numpy().tolist()
    [[2, 1]]
    """
    classes = logits.shape[-1]
    wrong = tf.where(tf.one_hot(labels, classes) > 0, logits.dtype.min, logits)
    return tf.math.top_k(wrong, min(count, classes - 1)).indices


def targeted_loss(loss, target):
    """`(labels, logits) -> (batch,)` to climb towards the classes `target`, `(batch,)` int32.

    For the DLR and the margin these have forms of their own, which the label has a part in; any
    other `loss` is that of the target, made small.
    """
    if loss is losses.dlr:
        return lambda labels, logits: _dlr(labels, target, logits)
    if loss is losses.margin:
        return lambda labels, logits: _gap(labels, target, logits)
    return lambda labels, logits: -loss(target, logits)


def _gap(labels, target, logits) -> tf.Tensor:
    """The target's logit minus the label's."""
    classes = tf.shape(logits)[-1]
    if labels.shape.rank == 2:
        labels = tf.argmax(labels, axis=-1, output_type=tf.int32)
    return tf.reduce_sum(logits * (tf.one_hot(target, classes) - tf.one_hot(labels, classes)), -1)


def _dlr(labels, target, logits) -> tf.Tensor:
    """The targeted difference of logits ratio, Croce and Hein 2020, eq. 7."""
    if logits.shape[-1] < 4:
        raise ValueError(
            f'The targeted "dlr" loss needs at least 4 classes, got {logits.shape[-1]}. Use '
            'loss="margin".'
        )
    top = tf.math.top_k(logits, 4).values
    return _gap(labels, target, logits) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)
