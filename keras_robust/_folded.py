"""BatchNormalization folded into the convolution before it, for passes that train nothing."""

import contextlib
import functools

import tensorflow as tf

from keras_robust._batch_norm import scale_and_shift
from keras_robust._fast_passes import is_convolution, normalizes_channels
from keras_robust._keras import is_model, keras, only_consumer

_DTYPES = ("float32", "bfloat16")


@contextlib.contextmanager
def folded_batch_norm(model, dtype: str | None = None):
    """While it lasts, passes in inference mode normalise by the convolutions' own weights.

    These are scaled once, on entering, and not differentiated through, so that an attack of many
    steps has one operation less for each BatchNormalization, there and back. For code that is
    being traced: what is traced inside keeps it. Values are the same to rounding; passes in
    training mode, and those in which a convolution's output goes elsewhere, stay as they are.

    Args:
        model: only a Keras model is touched, and left as it was.
        dtype: what its float32 layers will compute in, None for float32.
    """
    made, before = {}, []
    # Run at once, a convolution that nobody needs would be computed.
    worth = is_model(model) and not tf.executing_eagerly()
    for convolution, norm in _pairs(model) if worth else ():
        fold = _Fold(convolution, norm, dtype, made)
        for layer, call in ((convolution, fold.convolve), (norm, fold.normalize)):
            before.append((layer, vars(layer).get("call")))
            # Past Keras, which would track the function as if it were state.
            vars(layer)["call"] = call
    try:
        yield
    finally:
        for layer, call in before:
            if call is None:
                del vars(layer)["call"]
            else:
                vars(layer)["call"] = call


class _Fold:
    """The calls of a convolution and of the normalization after it.

    The convolution computes what it always does, and nothing of the graph may need that. The
    normalization, if it is given that very tensor, convolves anew with the scaled weights.
    """

    def __init__(self, convolution, norm, dtype, made):
        self.convolution, self.norm, self.made = convolution, norm, made
        self.convolve_plainly, self.normalize_plainly = _call_of(convolution), _call_of(norm)
        scale, shift = scale_and_shift(norm)
        kernel = tf.cast(tf.convert_to_tensor(_kernel(convolution)), tf.float32)
        kernel *= tf.reshape(scale, kernel.shape[2:]) if _is_depthwise(convolution) else scale
        if convolution.use_bias:
            shift += scale * tf.cast(tf.convert_to_tensor(convolution.bias), tf.float32)
        if dtype is None or convolution.compute_dtype != "float32":
            dtype = convolution.compute_dtype
        self.kernel, self.shift = tf.cast(kernel, dtype), tf.cast(shift, dtype)

    def convolve(self, inputs):
        outputs = self.convolve_plainly(inputs)
        self.made[id(outputs)] = outputs, inputs
        return outputs

    def normalize(self, inputs, training=None, mask=None):
        outputs, images = self.made.get(id(inputs), (None, None))
        inference = isinstance(training, (bool, int)) and not training
        # With an id of a tensor that is kept: no other has it.
        if outputs is not inputs or not inference or mask is not None:
            return self.normalize_plainly(inputs, training=training, mask=mask)
        images, layer = tf.convert_to_tensor(images), self.convolution
        kernel = tf.cast(self.kernel, images.dtype)
        if _is_depthwise(layer):
            strides = [1, *layer.strides, 1]
            values = tf.nn.depthwise_conv2d(images, kernel, strides, layer.padding.upper())
        else:
            values = layer.convolution_op(images, kernel)
        return tf.nn.bias_add(values, tf.cast(self.shift, values.dtype))


def _pairs(model):
    """Convolutions whose output a BatchNormalization alone takes, with that layer."""
    for layer in model._flatten_layers():
        if not (is_convolution(layer) or _is_depthwise(layer)):
            continue
        if layer.activation is not keras.activations.linear or layer.activity_regularizer:
            continue
        norm = only_consumer(layer)
        if norm is None or not normalizes_channels(norm):
            continue
        if layer.compute_dtype in _DTYPES and layer.compute_dtype == norm.compute_dtype:
            yield layer, norm


def _is_depthwise(layer) -> bool:
    return (
        type(layer) is keras.layers.DepthwiseConv2D
        and layer.built
        and layer.data_format == "channels_last"
        and layer.strides[0] == layer.strides[1]
        and tuple(layer.dilation_rate) == (1, 1)
    )


def _kernel(layer):
    # As tf_keras calls a depthwise one.
    return layer.depthwise_kernel if hasattr(layer, "depthwise_kernel") else layer.kernel


def _call_of(layer):
    return vars(layer).get("call") or functools.partial(type(layer).call, layer)
