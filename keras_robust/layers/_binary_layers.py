"""Dense and convolutional layers with binary weights."""

import numbers

import tensorflow as tf

from keras_robust._keras import keras
from keras_robust.layers._binary import Binary

PACKAGE = "keras_robust"


class Dense(Binary):
    """What `BinaryDense` is in either Keras; see there."""

    input_rank = None

    def __init__(self, units, activation=None, use_bias=True, **kwargs):
        _check_whole("units", units)
        super().__init__(activation, use_bias, **kwargs)
        self.units = int(units)

    def _shapes(self, channels):
        return (channels, self.units), channels, self.units, self.units

    def _apply(self, inputs, kernel):
        if inputs.shape.rank == 2:
            return tf.matmul(inputs, kernel)
        return tf.tensordot(inputs, kernel, 1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Windows(Binary):
    """What the two convolutions have in common."""

    input_rank = 4

    def __init__(self, kernel_size, strides, padding, dilation_rate, *args, **kwargs):
        if padding not in ("valid", "same"):
            raise ValueError(f'`padding` must be "valid" or "same", got {padding!r}.')
        super().__init__(*args, **kwargs)
        self.kernel_size = _pair("kernel_size", kernel_size)
        self.strides = _pair("strides", strides)
        self.dilation_rate = _pair("dilation_rate", dilation_rate)
        self.padding = padding
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                "`strides` and `dilation_rate` cannot both be above 1, got "
                f"strides={self.strides} and dilation_rate={self.dilation_rate}."
            )

    def _sides(self, input_shape):
        """Height and width of the output; None where the input leaves them open."""
        sides = []
        for axis in (0, 1):
            length, step = input_shape[axis + 1], self.strides[axis]
            if length is not None and self.padding == "valid":
                length -= self.dilation_rate[axis] * (self.kernel_size[axis] - 1)
            sides.append(None if length is None else -(-length // step))
        return sides

    def get_config(self):
        own = ("kernel_size", "strides", "padding", "dilation_rate")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


class Conv2D(Windows):
    """What `BinaryConv2D` is in either Keras; see there."""

    def __init__(
        self,
        filters,
        kernel_size,
        strides=(1, 1),
        padding="valid",
        dilation_rate=(1, 1),
        activation=None,
        use_bias=True,
        **kwargs,
    ):
        _check_whole("filters", filters)
        super().__init__(
            kernel_size, strides, padding, dilation_rate, activation, use_bias, **kwargs
        )
        self.filters = int(filters)

    def _shapes(self, channels):
        window = self.kernel_size[0] * self.kernel_size[1]
        shape = (*self.kernel_size, channels, self.filters)
        return shape, window * channels, window * self.filters, self.filters

    def _apply(self, inputs, kernel):
        return tf.nn.convolution(
            inputs, kernel, self.strides, self.padding.upper(), dilations=self.dilation_rate
        )

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *self._sides(input_shape), self.filters)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


class DepthwiseConv2D(Windows):
    """What `BinaryDepthwiseConv2D` is in either Keras; see there."""

    def __init__(
        self,
        kernel_size,
        strides=(1, 1),
        padding="valid",
        depth_multiplier=1,
        dilation_rate=(1, 1),
        activation=None,
        use_bias=True,
        **kwargs,
    ):
        _check_whole("depth_multiplier", depth_multiplier)
        super().__init__(
            kernel_size, strides, padding, dilation_rate, activation, use_bias, **kwargs
        )
        if self.strides[0] != self.strides[1]:
            raise ValueError(
                f"`strides` of a depthwise layer must be equal, got strides={self.strides}."
            )
        self.depth_multiplier = int(depth_multiplier)

    def _shapes(self, channels):
        # Of one channel: a unit sees one window, and an input feeds `depth_multiplier` of them.
        window = self.kernel_size[0] * self.kernel_size[1]
        shape = (*self.kernel_size, channels, self.depth_multiplier)
        outputs = channels * self.depth_multiplier
        return shape, window, window * self.depth_multiplier, outputs

    def _apply(self, inputs, kernel):
        return tf.nn.depthwise_conv2d(
            inputs,
            kernel,
            strides=(1, *self.strides, 1),
            padding=self.padding.upper(),
            dilations=self.dilation_rate,
        )

    def compute_output_shape(self, input_shape):
        channels = input_shape[-1] * self.depth_multiplier
        return (input_shape[0], *self._sides(input_shape), channels)

    def get_config(self):
        return {**super().get_config(), "depth_multiplier": self.depth_multiplier}


@keras.saving.register_keras_serializable(PACKAGE)
class BinaryDense(Dense, keras.layers.Layer):
    """A Dense layer whose weights are +H or -H, over real ones that are trained.

    BinaryConnect, Courbariaux, Bengio and David 2015, https://arxiv.org/abs/1511.00363. In each
    step of training the real weights W in [-H, H] are made binary once, for forward and backward
    pass and for an attack; the gradient with respect to the binary ones moves the real ones,
    which are then clipped. Where it saturates the gradient is not cut: the clip does that.
    Normalise what comes out (BatchNormalization), train with `kr.losses.SquaredHinge` or
    cross-entropy, without weight decay, which works against the clip. Then
    `kr.compress.freeze_binary` gives a plain model.

    The paper moves each W by a multiple of the step, 1 / g with Glorot's bound
    g = sqrt(1.5 / (fan_in + fan_out)), or 1 / g^2 for SGD. Here the variable is `latent` = W g,
    which comes to the same under any optimizer.

    Args:
        units: outputs, >= 1.
        activation: as for any Keras layer.
        use_bias: whether there is a bias, which is real. None is needed before BatchNormalization.
        stochastic: draw +H with probability (W / H + 1) / 2 instead of taking the sign.
        test_weights: the weights of inference: "binary", the signs; "real", W itself, which the
            paper takes after stochastic training and which is no 1-bit network; "sampled", one
            fixed draw. `kr.layers.sampled_logits` averages many.
        scale: H, "glorot" or a number > 0.
        learning_rate_scale: 1 / g, "glorot" or a number > 0; 1 trains W itself.
        bias_initializer: as for any Keras layer.
        seed: int; start and draws follow from it, the layer's name and the step. Name the layers
            of a model that is to be repeated.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras layer. The real weights are
            float32 under mixed precision. A layer with `trainable = False` is in inference.

    Raises:
        ValueError: an argument out of its range; when built, an input without a fixed last axis.

    >>> layer = kr.layers.BinaryDense(2, name="binary")
    >>> _ = layer(tf.ones([1, 3]))
    >>> np.unique(layer.kernel).tolist()
    [-1.0, 1.0]
    """

    keras = keras


@keras.saving.register_keras_serializable(PACKAGE)
class BinaryConv2D(Conv2D, keras.layers.Layer):
    """A Conv2D layer whose weights are +H or -H; all else as in `BinaryDense`.

    Args:
        filters: output channels, >= 1.
        kernel_size, strides, padding, dilation_rate: as for Conv2D. Channels are last, and there
            are no groups.
        activation, use_bias: as for Conv2D.
        **kwargs: as for `BinaryDense`. Glorot's bound has fan_in = window * input channels and
            fan_out = window * filters.

    Raises:
        ValueError: an argument out of its range; when built, an input that is no image.

    >>> layer = kr.layers.BinaryConv2D(2, 3, name="binary")
    >>> layer(tf.ones([1, 5, 5, 1])).shape
    TensorShape([1, 3, 3, 2])
    """

    keras = keras


@keras.saving.register_keras_serializable(PACKAGE)
class BinaryDepthwiseConv2D(DepthwiseConv2D, keras.layers.Layer):
    """A DepthwiseConv2D layer whose weights are +H or -H; all else as in `BinaryDense`.

    Args:
        kernel_size, strides, padding, depth_multiplier, dilation_rate: as for DepthwiseConv2D.
        activation, use_bias: as for DepthwiseConv2D.
        **kwargs: as for `BinaryDense`. Glorot's bound has fan_in = window and
            fan_out = window * depth_multiplier.

    Raises:
        ValueError: an argument out of its range; when built, an input that is no image.

    >>> layer = kr.layers.BinaryDepthwiseConv2D(3, name="binary")
    >>> layer(tf.ones([1, 5, 5, 2])).shape
    TensorShape([1, 3, 3, 2])
    """

    keras = keras


def _check_whole(name, value):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"`{name}` must be a whole number >= 1, got {value!r}.")


def _pair(name, value) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, numbers.Integral) else tuple(value)
    if len(pair) != 2:
        raise ValueError(f"`{name}` must be a whole number or a pair of them, got {value!r}.")
    for side in pair:
        _check_whole(name, side)
    return int(pair[0]), int(pair[1])
