"""BatchNormalization: its statistics for other weights than those trained with, and its speed."""

import itertools

import tensorflow as tf

from keras_robust._keras import keras


def check_batch_norm(dataset) -> None:
    """Raises ValueError unless the argument `batch_norm` is a `tf.data.Dataset` or None."""
    if dataset is not None and not isinstance(dataset, tf.data.Dataset):
        raise ValueError(
            "`batch_norm` must be a tf.data.Dataset of batches of inputs, got "
            f"{type(dataset).__name__}."
        )


def measure_batch_norm(model, dataset) -> None:
    """Sets the moving statistics of `model` to their plain mean over the batches of `dataset`.

    A layer that is called several times a batch has its mean over all its calls.

    Args:
        model: its other variables are left as they are.
        dataset: `tf.data.Dataset` of inputs, or of `(inputs, ...)`.
    """
    norms = [layer for layer in model._flatten_layers() if _is_norm(layer)]
    momenta = [layer.momentum for layer in norms]
    statistics = {id(v) for layer in norms for v in layer.non_trainable_variables}
    # The passes draw random numbers for dropout, and training must not notice.
    others = [v for v in model.non_trainable_variables if id(v) not in statistics]
    kept = [tf.convert_to_tensor(variable) for variable in others]
    try:
        for layer in norms:
            vars(layer)["call"] = _averaging(layer)  # Past Keras, which tracks what is set.
        for batch in dataset:
            model(batch[0] if isinstance(batch, tuple) else batch, training=True)
    finally:
        for layer, momentum in zip(norms, momenta):
            layer.momentum = momentum
            vars(layer).pop("call", None)
        for variable, value in zip(others, kept):
            variable.assign(value)


def _is_norm(layer) -> bool:
    # In tf_keras the synchronized one is no subclass of the other.
    kind = keras.layers.BatchNormalization
    return isinstance(layer, kind) or type(layer).__name__ == "SyncBatchNormalization"


def _averaging(layer):
    """The layer's `call`, by which its statistics are the mean over all calls from now on."""
    call, done = layer.call, itertools.count()

    def averaging(*args, **kwargs):
        number = next(done)
        layer.momentum = number / (number + 1.0)
        return call(*args, **kwargs)

    return averaging


def fused_batch_norm(x, layer) -> tf.Tensor:
    """What `layer` computes in inference, and its gradient, by one operation each.

    Of channels that are no multiple of 16 oneDNN normalises bfloat16 one by one, and several
    operations in float32 are faster.

    Args:
        x: `(batch, height, width, channels)`, float32 or half; all is computed in float32.
        layer: Keras's BatchNormalization over the last axis.

    Returns:
        As `x`.
    """
    mean, variance, scale, offset = _parameters(layer)
    if x.shape[-1] % 16:
        wide = tf.cast(x, tf.float32)
        values = tf.nn.batch_normalization(wide, mean, variance, offset, scale, layer.epsilon)
        return tf.cast(values, x.dtype)

    def normalize(x, scale, offset, mean):
        return tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=scale,
            offset=offset,
            mean=mean,
            variance=variance,
            epsilon=layer.epsilon,
            is_training=False,
        )[0]

    @tf.custom_gradient
    def forward(x, scale, offset):
        def backward(gradient):
            zeros = tf.zeros_like(mean)
            to_images = normalize(gradient, scale, zeros, zeros)
            # Nobody asks for the others in an attack, and the graph drops them.
            wide, axes = tf.cast(gradient, tf.float32), [0, 1, 2]
            normal = (tf.cast(x, tf.float32) - mean) * tf.math.rsqrt(variance + layer.epsilon)
            return to_images, tf.reduce_sum(wide * normal, axes), tf.reduce_sum(wide, axes)

        return normalize(x, scale, offset, mean), backward

    return forward(x, scale, offset)


def train_batch_norm(x, layer) -> tf.Tensor:
    """What Keras 3's `layer` computes in training, by one operation; it moves the statistics too.

    Args:
        x: `(batch, height, width, channels)`, float32 or bfloat16; all is computed in float32.
        layer: Keras's BatchNormalization over the last axis.

    Returns:
        As `x`.
    """
    kept_mean, kept_variance, scale, offset = _parameters(layer)
    values, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=scale,
        offset=offset,
        mean=tf.zeros_like(kept_mean),
        variance=tf.zeros_like(kept_mean),
        epsilon=layer.epsilon,
        is_training=True,
    )
    # The operation divides by one less than it summed, Keras 3 by as many.
    count = tf.cast(tf.size(x) // x.shape[-1], tf.float32)
    variance *= tf.math.divide_no_nan(tf.maximum(count - 1.0, 1.0), count)
    for moving, kept, new in (
        (layer.moving_mean, kept_mean, mean),
        (layer.moving_variance, kept_variance, variance),
    ):
        moving.assign(kept * layer.momentum + new * (1.0 - layer.momentum))
    return values


def scale_and_shift(layer):
    """What `layer` multiplies by and then adds in inference, `(channels,)` float32."""
    mean, variance, scale, offset = _parameters(layer)
    scale *= tf.math.rsqrt(variance + layer.epsilon)
    return scale, offset - mean * scale


def _parameters(layer):
    """Mean, variance, scale and offset of `layer`, float32."""
    mean, variance = _whole(layer.moving_mean), _whole(layer.moving_variance)
    scale = _whole(layer.gamma) if layer.scale else tf.ones_like(mean)
    return mean, variance, scale, _whole(layer.beta) if layer.center else tf.zeros_like(mean)


def _whole(variable) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(variable), tf.float32)
