"""Cross-entropy against labels that leave a little to the other classes."""

import tensorflow as tf

from keras_robust._keras import keras
from keras_robust.losses._classification import _labels, _wide, cross_entropy


def smooth(labels, classes: int, smoothing: float) -> tf.Tensor:
    """Label vectors mixed with the uniform distribution.

    Szegedy et al. 2016, https://arxiv.org/abs/1512.00567, section 7.

    Args:
        labels: `(batch,)` int in `[0, classes)`, or `(batch, classes)`.
        classes: number of them.
        smoothing: share of the uniform distribution, in [0, 1).

    Returns:
        float32 (or the dtype of floating vectors) `(batch, classes)`; rows sum to what they did.

    >>> smooth([0], 2, 0.5).numpy().tolist()
    [[0.75, 0.25]]
    """
    labels = _labels(labels)
    if labels.shape.rank == 1:
        labels = tf.one_hot(tf.cast(labels, tf.int32), classes)
    labels = labels if labels.dtype.is_floating else tf.cast(labels, tf.float32)
    return labels * (1.0 - smoothing) + smoothing / classes


@keras.saving.register_keras_serializable("keras_robust")
class LabelSmoothing(keras.losses.Loss):
    """Cross-entropy of logits with smoothed labels, which may be integers or vectors.

    Keras smooths one-hot labels only. Give it to `compile`: the attack then still climbs its
    own loss at the true labels, as in Pang et al. 2021, https://arxiv.org/abs/2010.00467.

    Args:
        smoothing: share of the uniform distribution, in [0, 1).
        **kwargs: `reduction` and `name`, as for any Keras loss.

    Raises:
        ValueError: `smoothing` out of its range.

    >>> loss = LabelSmoothing(0.1)
    >>> round(float(loss([0, 1], tf.constant([[0.0, 0.0], [0.0, 0.0]]))), 4)
    0.6931
    """

    def __init__(self, smoothing: float = 0.1, **kwargs):
        if not 0 <= smoothing < 1:
            raise ValueError(f"`smoothing` must be in [0, 1), got smoothing={smoothing!r}.")
        kwargs.setdefault("name", "label_smoothing")
        super().__init__(**kwargs)
        self.smoothing = float(smoothing)

    def call(self, y_true, y_pred):
        logits = _wide(y_pred)
        soft = tf.cast(smooth(y_true, logits.shape[-1], self.smoothing), logits.dtype)
        return cross_entropy(soft, logits)

    def get_config(self):
        return {**super().get_config(), "smoothing": self.smoothing}
