"""ShuffleNet: grouped 1x1 convolutions, and channels shuffled between the groups."""

import numbers

from keras_robust._keras import keras
from keras_robust.zoo._inputs import SMALL, Seeds, normalized_input
from keras_robust.zoo._mobilenet import depthwise
from keras_robust.zoo._resnet import _conv
from keras_robust.zoo._width import check_width, scaled

# Channels of the first stage by the number of groups: at about the same cost.
_CHANNELS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
_STEM = 24


def shufflenet(
    input_shape=(32, 32, 3),
    classes=10,
    seed=0,
    *,
    mean=0.5,
    std=0.5,
    width=1.0,
    groups=3,
    units=(4, 8, 4),
):
    """ShuffleNet of Zhang et al. 2018, https://arxiv.org/abs/1707.01083.

    Images up to 64 pixels a side get a first convolution of stride 1 without pooling (914,338
    trainable weights at 3 channels and 10 classes), larger ones the paper's (1,865,728 at 1,000
    classes). Shuffling is a Reshape, a Permute and a Reshape.

    Args:
        input_shape: `(height, width, channels)` of images in [0, 1].
        classes: number of logits, >= 2.
        seed: of the initial weights.
        mean: of the images, subtracted inside the model; one number or one a channel.
        std: of the images, divided by inside the model; one number or one a channel.
        width: multiplier of the channel numbers after the first convolution.
        groups: of the 1x1 convolutions: 1, 2, 3, 4 or 8.
        units: of each of the stages, which halve the sides and double the channels.

    Returns:
        A functional model, `(batch, h, w, c)` in [0, 1] to `(batch, classes)` logits.

    Raises:
        ValueError: an argument out of its range.
    """
    inputs, x = normalized_input(input_shape, classes, seed, mean, std)
    width, seeds, layers = check_width(width), Seeds(seed), keras.layers
    if isinstance(groups, bool) or groups not in _CHANNELS:
        raise ValueError(f"`groups` must be one of {tuple(_CHANNELS)}, got {groups!r}.")
    if not isinstance(units, tuple | list) or not units or not all(map(_whole, units)):
        raise ValueError(f"`units` must be whole numbers >= 1, got {units!r}.")
    if max(inputs.shape[1:3]) <= SMALL:
        x = _conv(x, _STEM, 3, 1, "stem", seeds)
    else:
        x = _conv(x, _STEM, 3, 2, "stem", seeds)
        x = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    # A quarter of them must still fall into groups, and the first stage must add to the stem's.
    first = max(scaled(_CHANNELS[groups], width, 4 * groups), scaled(2 * _STEM, 1.0, 4 * groups))
    for stage, count in enumerate(units):
        for i in range(count):
            name = f"unit{stage + 1}_{i + 1}"
            x = _unit(x, first * 2**stage, 1 if i else 2, groups, name, seeds)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    start = keras.initializers.GlorotUniform(seed=seeds())
    logits = layers.Dense(classes, kernel_initializer=start, name="logits")(x)
    return keras.Model(inputs, logits, name="shufflenet")


def _whole(value) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and value >= 1


def _unit(x, channels, stride, groups, name, seeds):
    layers, inputs = keras.layers, x.shape[-1]
    # The few channels of the stem are not worth groups.
    y = _grouped(x, channels // 4, 1 if inputs == _STEM else groups, f"{name}_in", seeds)
    y = layers.ReLU(name=f"{name}_in_relu")(y)
    if groups > 1:
        y = _shuffled(y, groups, name)
    y = depthwise(y, stride, f"{name}_depthwise", seeds)
    left = channels if stride == 1 else channels - inputs
    y = _grouped(y, left, groups, f"{name}_out", seeds)
    if stride == 1:
        y = layers.Add(name=f"{name}_add")([x, y])
    else:
        x = layers.AveragePooling2D(3, 2, padding="same", name=f"{name}_pool")(x)
        y = layers.Concatenate(name=f"{name}_concat")([x, y])
    return layers.ReLU(name=f"{name}_relu")(y)


def _grouped(x, filters, groups, name, seeds):
    start = keras.initializers.HeNormal(seed=seeds())
    x = keras.layers.Conv2D(
        filters, 1, groups=groups, use_bias=False, kernel_initializer=start, name=f"{name}_conv"
    )(x)
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)


def _shuffled(x, groups, name):
    """Channel j of group i becomes channel i of group j, the groups being as many as before."""
    height, width, channels = x.shape[1:]
    layers = keras.layers
    x = layers.Reshape((height, width, groups, channels // groups), name=f"{name}_split")(x)
    x = layers.Permute((1, 2, 4, 3), name=f"{name}_shuffle")(x)
    return layers.Reshape((height, width, channels), name=f"{name}_join")(x)
