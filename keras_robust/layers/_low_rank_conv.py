"""A convolution to few channels, then a 1x1 convolution out of them, trained from scratch."""

import tensorflow as tf

from keras_robust._keras import keras
from keras_robust.layers._counterpart import PACKAGE
from keras_robust.layers._low_rank import Factorized, check_whole


class ConvBody(Factorized):
    """What `LowRankConv2D` is in either Keras; see there."""

    def __init__(
        self,
        filters,
        kernel_size,
        rank,
        strides=1,
        padding="valid",
        dilation_rate=1,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_whole("filters", filters)
        self.filters = int(filters)
        self.kernel_size = _pair("kernel_size", kernel_size)
        self.strides = _pair("strides", strides)
        self.dilation_rate = _pair("dilation_rate", dilation_rate)
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                f"`strides`={self.strides} and `dilation_rate`={self.dilation_rate} cannot both be "
                "above 1. Leave one of the two at 1."
            )
        if padding not in ("valid", "same"):
            raise ValueError(f'`padding` must be "valid" or "same", got {padding!r}.')
        self.padding = padding
        self.set_arguments(
            rank, activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer,
            bias_regularizer, kernel_constraint, bias_constraint,
        )  # fmt: skip

    def build(self, input_shape):
        shape = tuple(input_shape)
        if len(shape) != 4 or shape[-1] is None:
            raise ValueError(
                f"Layer {self.name!r} takes images (batch, height, width, channels), got an input "
                f"of shape {shape}."
            )
        self.add_factors(self.kernel_size, int(shape[-1]), self.filters)

    def call(self, inputs):
        narrow = tf.nn.conv2d(
            inputs,
            tf.cast(self.kernel_in, inputs.dtype),
            strides=self.strides,
            padding=self.padding.upper(),
            dilations=self.dilation_rate,
        )
        wide = tf.nn.conv2d(narrow, tf.cast(self.kernel_out, inputs.dtype), 1, "VALID")
        return self.finish(wide)

    def compute_output_shape(self, input_shape):
        shape = tuple(input_shape)
        settings = zip(shape[1:3], self.kernel_size, self.strides, self.dilation_rate, strict=True)
        sides = [_length(self.padding, *setting) for setting in settings]
        return (shape[0], *sides, self.filters)

    def get_config(self):
        own = ("filters", "kernel_size", "strides", "padding", "dilation_rate")
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in own},
            **self.common_config(),
        }


@keras.saving.register_keras_serializable(PACKAGE)
class LowRankConv2D(ConvBody, keras.layers.Layer):
    """A k x k convolution to `rank` channels and a 1x1 convolution to `filters`, in one layer.

    With I input channels it holds rank (k k I + filters) weights instead of k k I filters: the
    kernel, as a matrix of k k I rows, is a product of rank `rank`. Bias and activation come at
    the end. See `LowRankDense` for the start of the factors and their condition.

    Args:
        filters: number of output channels.
        kernel_size, strides, dilation_rate: one number or two; not both of the latter above 1.
        rank: of the kernel, 1 <= rank <= min(k k I, filters).
        padding: "valid" or "same".
        activation, use_bias: as for Conv2D.
        kernel_initializer: "glorot_uniform", "he_normal" or another VarianceScaling: the product
            of both kernels starts with that variance, and with all its singular values equal.
        bias_initializer, bias_regularizer, bias_constraint: as for Conv2D.
        kernel_regularizer, kernel_constraint: of each of the two factors.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras layer. Channels are last.

    Raises:
        ValueError: an argument out of its range; when built, a rank above the smaller side.

    >>> layer = kr.layers.LowRankConv2D(filters=32, kernel_size=3, rank=8, padding="same")
    >>> layer(tf.ones([1, 8, 8, 16])).shape, layer.count_params()
    (TensorShape([1, 8, 8, 32]), 1440)
    """

    keras = keras


def _pair(name: str, value) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, (list, tuple)) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"`{name}` must be one whole number or two, got {value!r}.")
    for part in pair:
        check_whole(name, part)
    return int(pair[0]), int(pair[1])


def _length(padding: str, length, window: int, stride: int, dilation: int):
    if length is None:
        return None
    if padding == "valid":
        length -= (window - 1) * dilation
    return -(-length // stride)
