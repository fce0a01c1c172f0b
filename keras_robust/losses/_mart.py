"""The MART objective as a pure loss."""

import tensorflow as tf

from keras_robust.losses._classification import _own, _wide, cross_entropy, kl_divergence


def runner_up(labels, logits) -> tf.Tensor:
    """`-log(1 - p)` of the largest probability `p` that is not the label's, in nats.

    The second part of the boosted cross-entropy of Wang et al. 2020,
    https://openreview.net/forum?id=rklOg6EFwS, eq. 9: besides raising the label's probability,
    it pushes down that of its strongest rival.

    Args:
        labels: `(batch,)` int in `[0, classes)`, or `(batch, classes)`, whose largest entry
            counts.
        logits: `(batch, classes)`.

    Returns:
        `(batch,)`, >= 0.

    >>> round(float(runner_up([0], [[0.0, 0.0]])[0]), 4)
    0.6931
    """
    logits = _wide(logits)
    _, own = _own(labels, logits)
    rival = tf.argmax(tf.where(own, logits.dtype.min, logits), axis=-1, output_type=tf.int32)
    # As a sum over the others: 1 - p rounds to zero where the rival is certain.
    mask = tf.one_hot(rival, tf.shape(logits)[-1], on_value=True, off_value=False)
    others = tf.where(mask, logits.dtype.min, logits)
    return tf.reduce_logsumexp(logits, axis=-1) - tf.reduce_logsumexp(others, axis=-1)


def misclassification(labels, logits) -> tf.Tensor:
    """`1 - p` of the label's probability `p`: MART's weight of an example.

    Args:
        labels: `(batch,)` int, or `(batch, classes)`, whose largest entry counts.
        logits: `(batch, classes)`.

    Returns:
        `(batch,)` in `[0, 1]`.

    >>> misclassification([0], [[0.0, 0.0]]).numpy().tolist()
    [0.5]
    """
    logits = _wide(logits)
    own, mask = _own(labels, logits)
    others = tf.reduce_logsumexp(tf.where(mask, logits.dtype.min, logits), axis=-1)
    # 1 - p itself would round to zero where the label is certain.
    return tf.sigmoid(others - own)


def mart(labels, clean_logits, adv_logits, beta: float = 5.0) -> tf.Tensor:
    """MART of Wang et al. 2020, https://openreview.net/forum?id=rklOg6EFwS, eq. 11.

    The boosted cross-entropy at the adversarial example, plus `beta` times the divergence from
    the clean prediction, which counts by how wrong the clean prediction is.

    Args:
        labels: `(batch,)` int in `[0, classes)`, or `(batch, classes)`.
        clean_logits: `(batch, classes)`, from the clean inputs.
        adv_logits: `(batch, classes)`, from the attacked inputs.
        beta: weight of the divergence (lambda in the paper), >= 0.

    Returns:
        `(batch,)`, in nats.

    Raises:
        ValueError: negative `beta`.

    >>> round(float(mart([1], [[0.0, 0.0]], [[0.0, 0.0]])[0]), 4)
    1.3863
    """
    if not beta >= 0:
        raise ValueError(f"`beta` must be >= 0, got beta={beta}.")
    boosted = cross_entropy(labels, adv_logits) + runner_up(labels, adv_logits)
    divergence = kl_divergence(clean_logits, adv_logits)
    return boosted + beta * misclassification(labels, clean_logits) * divergence
