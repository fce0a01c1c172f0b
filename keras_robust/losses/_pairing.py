"""The distance between two logits of one example."""

import tensorflow as tf

from keras_robust.losses._classification import _wide


def logit_pairing(logits, other_logits) -> tf.Tensor:
    """The squared l2 distance of two logits, which adversarial logit pairing makes small.

    Kannan et al. 2018, https://arxiv.org/abs/1803.06373, eq. 2.

    Args:
        logits: `(batch, classes)`, of the clean inputs.
        other_logits: `(batch, classes)`, of the attacked inputs.

    Returns:
        `(batch,)`, >= 0, in the logits' units squared.

    >>> logit_pairing([[1.0, 2.0]], [[1.0, 4.0]]).numpy().tolist()
    [4.0]
    """
    return tf.reduce_sum(tf.square(_wide(logits) - _wide(other_logits)), axis=-1)
