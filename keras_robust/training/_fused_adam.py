"""Adam's update of a variable by one operation, which reads and writes each of its arrays once."""

import contextlib
import functools

import tensorflow as tf

from keras_robust._keras import LEGACY, keras


@contextlib.contextmanager
def fused_adam(optimizer, enabled=True):
    """While it lasts, `optimizer` updates float32 variables by TensorFlow's operation for it.

    For code that is being traced: what is traced inside keeps it. The rule is Kingma and Ba's,
    https://arxiv.org/abs/1412.6980, as Keras writes it, and all that Keras does around it stays:
    schedules, clipping, weight decay, averages, constraints. An `optimizer` that is not Keras's
    own Adam or AdamW stays as it is, and so does every one under a strategy. Leave it out under
    XLA, which fuses what Keras writes.
    """
    if not enabled or not _is_plain_adam(optimizer) or tf.distribute.has_strategy():
        yield
        return
    # Past Keras, which would track the function as if it were state.
    vars(optimizer)["update_step"] = functools.partial(_update_step, optimizer)
    try:
        yield
    finally:
        del vars(optimizer)["update_step"]


def _is_plain_adam(optimizer) -> bool:
    own = type(optimizer) in (keras.optimizers.Adam, keras.optimizers.AdamW)
    own = own and "update_step" not in vars(optimizer)
    # tf_keras may compile the update itself, on GPUs; Keras 3 has neither of the last two.
    other = ("amsgrad", "jit_compile", "adaptive_epsilon")
    return own and not any(getattr(optimizer, name, False) for name in other)


def _update_step(optimizer, gradient, variable, *learning_rate):
    rate = learning_rate[0] if learning_rate else optimizer.learning_rate
    if variable.dtype != tf.float32 or isinstance(gradient, tf.IndexedSlices):
        return type(optimizer).update_step(optimizer, gradient, variable, *learning_rate)
    step = tf.cast(tf.convert_to_tensor(optimizer.iterations), tf.float32) + 1.0
    slot = _slot(optimizer, variable)
    return tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=_handle(optimizer._momentums[slot]),
        v=_handle(optimizer._velocities[slot]),
        beta1_power=tf.pow(tf.cast(optimizer.beta_1, tf.float32), step),
        beta2_power=tf.pow(tf.cast(optimizer.beta_2, tf.float32), step),
        lr=tf.cast(tf.convert_to_tensor(rate), tf.float32),
        beta1=tf.cast(optimizer.beta_1, tf.float32),
        beta2=tf.cast(optimizer.beta_2, tf.float32),
        epsilon=tf.cast(optimizer.epsilon, tf.float32),
        grad=tf.cast(gradient, tf.float32),
    )


def _slot(optimizer, variable) -> int:
    if LEGACY:
        return optimizer._index_dict[optimizer._var_key(variable)]
    return optimizer._get_variable_index(variable)


def _handle(variable):
    return (variable if LEGACY else variable.value).handle
