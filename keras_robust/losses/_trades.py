"""The TRADES objective as a pure loss."""

import tensorflow as tf

from keras_robust.losses._classification import cross_entropy, kl_divergence


def trades(labels, clean_logits, adv_logits, beta: float = 6.0) -> tf.Tensor:
    """TRADES of Zhang et al. 2019, https://arxiv.org/abs/1901.08573, the multi-class eq. 5.

    Args:
        labels: `(batch,)` int in `[0, classes)`, or `(batch, classes)`.
        clean_logits: `(batch, classes)`, from the clean inputs.
        adv_logits: `(batch, classes)`, from the attacked inputs.
        beta: weight of the robust term (1/lambda in the paper), >= 0.

    Returns:
        `(batch,)`, in nats.

    Raises:
        ValueError: negative `beta`.

    >>> round(float(trades([1], [[0.0, 0.0]], [[0.0, 0.0]])[0]), 4)
    0.6931
    """
    if beta < 0:
        raise ValueError(f"`beta` must be >= 0, got beta={beta}.")
    return cross_entropy(labels, clean_logits) + beta * kl_divergence(clean_logits, adv_logits)
