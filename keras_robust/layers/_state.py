"""Variables that a layer moves itself, constraints and metrics, in either Keras."""

import threading

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


def constraint(keras, project):
    """`project`, a function of a variable, as Keras 3.12 wants it; later ones take any function."""

    class Projection(keras.constraints.Constraint):
        def __call__(self, value):
            return project(value)

    return Projection()


def keep_losses_apart(layer) -> None:
    """Gives each replica of a Keras 3 layer a list of losses of its own, as in tf_keras.

    Replicas are threads that take turns wherever one waits for the others. A layer that gathers
    statistics waits in mid-call, and with one list the replicas would then take each other's
    losses for their own.
    """
    if layer.keras.__name__ != "tf_keras":
        layer._losses = _PerThread()


class _PerThread:
    """As much of a list as Keras asks of `Layer._losses`, a separate one in every thread."""

    def __init__(self):
        self._lists = {}

    def _own(self) -> list:
        return self._lists.setdefault(threading.get_ident(), [])

    def extend(self, values):
        self._own().extend(values)

    def clear(self):
        self._lists.pop(threading.get_ident(), None)

    def __getitem__(self, index):
        return self._own()[index]
