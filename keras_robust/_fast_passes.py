"""Layers that compute in another way while they are attacked or trained, to the same values."""

import contextlib
import functools

import tensorflow as tf

from keras_robust._batch_norm import fused_batch_norm, train_batch_norm
from keras_robust._image_gradient import convolution
from keras_robust._keras import LEGACY, is_model, keras

# Of an image whose gradient is worth blocks of pixels.
_CHANNELS = 4
# Of a convolution that is worth being taken apart.
_GROUPS = 16


@contextlib.contextmanager
def fast_passes(model, enabled=True):
    """While it lasts, passes through `model`, and back to its images and weights, are faster.

    A first convolution is differentiated by blocks of pixels, one in groups is taken apart, and
    BatchNormalization is one operation each way, in bfloat16 and in training. For code that is
    being traced: what is traced inside keeps it. Values are the same, gradients to float
    rounding. A `model` that is not Keras's stays as it is. Leave it out under XLA, which has ways
    of its own.
    """
    replaced = []
    for layer in model._flatten_layers() if enabled and is_model(model) else ():
        if _takes_images(layer):
            replaced.append((layer, "convolution_op", _convolution_op))
        elif _has_few_groups(layer):
            replaced.append((layer, "convolution_op", _grouped_convolution_op))
        elif normalizes_channels(layer):
            replaced.append((layer, "call", _normalize))
    for layer, name, function in replaced:
        # Past Keras, which would track the function as if it were state.
        vars(layer)[name] = functools.partial(function, layer)
    try:
        yield
    finally:
        for layer, name, _ in replaced:
            vars(layer).pop(name, None)


def _takes_images(layer) -> bool:
    """Whether `layer` is Keras's own plain convolution of a few channels."""
    return (
        is_convolution(layer)
        and layer.groups == 1
        and tuple(layer.dilation_rate) == (1, 1)
        and layer.strides[0] == layer.strides[1]
        and layer.kernel.shape[2] <= _CHANNELS
    )


def _has_few_groups(layer) -> bool:
    """Whether `layer` is a convolution in groups, which Keras 3 gives to XLA.

    With XLA's gradient a pass through ShuffleNet took 8 times as long on a CPU.
    """
    return not LEGACY and is_convolution(layer) and 1 < layer.groups <= _GROUPS


def is_convolution(layer) -> bool:
    """Whether `layer` is Keras's own convolution of images, channels last."""
    return (
        type(layer) is keras.layers.Conv2D
        and layer.built
        and layer.data_format == "channels_last"
        and layer.padding in ("same", "valid")
    )


def normalizes_channels(layer) -> bool:
    """Whether `layer` is Keras's own BatchNormalization over the last axis of images."""
    if type(layer) is not keras.layers.BatchNormalization or not layer.built:
        return False
    # tf_keras has made a list of it.
    return layer.axis in (-1, 3, [3]) and not getattr(layer, "renorm", False)


def _convolution_op(layer, inputs, kernel):
    x, kernel = tf.convert_to_tensor(inputs), tf.convert_to_tensor(kernel)
    # tf_keras takes several axes of batches too.
    if x.shape.rank != 4 or None in x.shape[1:]:
        return type(layer).convolution_op(layer, x, kernel)
    return convolution(x, kernel, layer.strides[0], layer.padding)


def _grouped_convolution_op(layer, inputs, kernel):
    x, kernel = tf.convert_to_tensor(inputs), tf.convert_to_tensor(kernel)
    parts = zip(tf.split(x, layer.groups, -1), tf.split(kernel, layer.groups, -1), strict=True)
    settings = layer.strides, layer.padding.upper(), "NHWC", layer.dilation_rate
    return tf.concat([tf.nn.convolution(*part, *settings) for part in parts], -1)


def _normalize(layer, inputs, training=None, mask=None):
    x, plain = tf.convert_to_tensor(inputs), isinstance(training, (bool, int))
    if plain and mask is None and x.shape.rank == 4:
        # In float32 Keras's own operations are as fast, and float16 has no kernel on all devices.
        if not training and x.dtype == tf.bfloat16:
            return fused_batch_norm(x, layer)
        if training and _trains_fast(layer, x):
            return train_batch_norm(x, layer)
    return type(layer).call(layer, inputs, training=training, mask=mask)


def _trains_fast(layer, x) -> bool:
    """Whether one operation trains `layer` on `x` faster; tf_keras knows that itself."""
    own = layer.trainable and not layer.synchronized
    return not LEGACY and own and x.dtype in (tf.float32, tf.bfloat16) and x.shape[-1] % 16 == 0
