"""MobileNet: depthwise and pointwise convolutions in turn."""

from keras_robust._keras import keras
from keras_robust.zoo._inputs import SMALL, Seeds, normalized_input
from keras_robust.zoo._resnet import _conv
from keras_robust.zoo._width import check_width, scaled

# Filters and stride of each pair.
_PAIRS = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
_PAIRS += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]


def mobilenet(input_shape=(32, 32, 3), classes=10, seed=0, *, mean=0.5, std=0.5, width=1.0):
    """MobileNet of Howard et al. 2017, https://arxiv.org/abs/1704.04861.

    Images up to 64 pixels a side get a first convolution of stride 1 (3,217,226 trainable
    weights at 3 channels and 10 classes), larger ones the paper's of stride 2 (4,231,976 at
    1,000 classes).

    Args:
        input_shape: `(height, width, channels)` of images in [0, 1].
        classes: number of logits, >= 2.
        seed: of the initial weights.
        mean: of the images, subtracted inside the model; one number or one a channel.
        std: of the images, divided by inside the model; one number or one a channel.
        width: multiplier of all channel numbers, which stay multiples of 8.

    Returns:
        A functional model, `(batch, h, w, c)` in [0, 1] to `(batch, classes)` logits.

    Raises:
        ValueError: an argument out of its range.
    """
    inputs, x = normalized_input(input_shape, classes, seed, mean, std)
    width, seeds, layers = check_width(width), Seeds(seed), keras.layers
    stride = 1 if max(inputs.shape[1:3]) <= SMALL else 2
    x = _conv(x, scaled(32, width), 3, stride, "stem", seeds)
    for i, (filters, stride) in enumerate(_PAIRS, 1):
        x = depthwise(x, stride, f"block{i}_depthwise", seeds)
        x = layers.ReLU(name=f"block{i}_depthwise_relu")(x)
        x = _conv(x, scaled(filters, width), 1, 1, f"block{i}", seeds)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    start = keras.initializers.GlorotUniform(seed=seeds())
    logits = layers.Dense(classes, kernel_initializer=start, name="logits")(x)
    return keras.Model(inputs, logits, name="mobilenet")


def depthwise(x, stride, name, seeds):
    """A normalised 3x3 convolution of each channel for itself."""
    # Of 9 inputs each: Keras would take the fan-in of a kernel over all channels.
    start = keras.initializers.TruncatedNormal(stddev=(2 / 9) ** 0.5, seed=seeds())
    x = keras.layers.DepthwiseConv2D(
        3, stride, padding="same", use_bias=False, depthwise_initializer=start, name=f"{name}_conv"
    )(x)
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)
