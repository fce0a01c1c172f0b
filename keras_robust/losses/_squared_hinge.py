"""The loss of a support vector machine, squared, on class numbers."""

import tensorflow as tf

from keras_robust._keras import keras
from keras_robust.losses._classification import _labels, _wide


def squared_hinge(labels, logits) -> tf.Tensor:
    """Mean over the classes of max(0, 1 - t o)^2, t = +1 for the label and -1 for the others.

    Tang 2013, https://arxiv.org/abs/1306.0239, as BinaryConnect takes it (Courbariaux, Bengio and
    David 2015, https://arxiv.org/abs/1511.00363). Keras's loss of that name takes t itself.

    Args:
        labels: `(batch,)` int in `[0, classes)`, or `(batch, classes)` one-hot or soft in [0, 1].
        logits: `(batch, classes)`, any floating dtype; computed in at least float32.

    Returns:
        `(batch,)`, >= 0, in squared units of the logits.

    >>> squared_hinge([0], [[1.0, 0.0]]).numpy().tolist()
    [0.5]
    """
    labels, logits = _labels(labels), _wide(logits)
    if labels.shape.rank == 1:
        labels = tf.one_hot(tf.cast(labels, tf.int32), tf.shape(logits)[-1], dtype=logits.dtype)
    targets = 2.0 * tf.cast(labels, logits.dtype) - 1.0
    return tf.reduce_mean(tf.square(tf.nn.relu(1.0 - targets * logits)), axis=-1)


@keras.saving.register_keras_serializable("keras_robust")
class SquaredHinge(keras.losses.Loss):
    """`squared_hinge` for `compile`; labels may be integers or vectors.

    Args:
        **kwargs: `reduction` and `name`, as for any Keras loss.

    >>> float(SquaredHinge()([0, 1], tf.constant([[1.0, 0.0], [0.0, 3.0]])))
    0.5
    """

    def __init__(self, **kwargs):
        kwargs.setdefault("name", "squared_hinge")
        super().__init__(**kwargs)

    def call(self, y_true, y_pred):
        return squared_hinge(y_true, y_pred)
