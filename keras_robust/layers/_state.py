"""Variables that a layer moves itself, and its metrics, in either Keras."""

import tensorflow as tf


def add_state(layer, name: str, shape, value=None, dtype: str = "float32"):
    """A variable of `layer` that no optimizer sees, `value` or zeros at the start.

    Every replica has a copy and assigns to its own; they stay equal when all compute the same.
    """

    def start(shape, dtype=None):
        return tf.zeros(shape, dtype) if value is None else tf.constant(value, dtype)

    if layer.keras.__name__ == "tf_keras":
        return layer.add_weight(
            name=name,
            shape=shape,
            dtype=dtype,
            initializer=start,
            trainable=False,
            experimental_autocast=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
    # `add_weight` of Keras 3 knows no synchronization.
    return layer.keras.Variable(
        start,
        shape=shape,
        dtype=dtype,
        trainable=False,
        autocast=False,
        synchronization="on_read",
        aggregation="only_first_replica",
        name=name,
    )


def mean_if_any(keras, name: str):
    """A metric: the mean of what it was given, NaN instead of 0 when that is nothing."""

    class MeanIfAny(keras.metrics.Mean):
        def result(self):
            total = tf.cast(tf.convert_to_tensor(self.total), tf.float32)
            count = tf.cast(tf.convert_to_tensor(self.count), tf.float32)
            mean = tf.math.divide_no_nan(total, count)
            return tf.where(count > 0, mean, tf.constant(float("nan")))

    return MeanIfAny(name=name)
