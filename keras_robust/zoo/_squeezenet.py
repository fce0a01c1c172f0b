"""SqueezeNet: few channels in, many out, and reduced late."""

from keras_robust._keras import keras
from keras_robust.zoo._inputs import SMALL, Seeds, normalized_input
from keras_robust.zoo._resnet import _conv
from keras_robust.zoo._width import check_width, scaled

# Squeezed channels of each fire module; a quarter of what each of its expansions has.
_FIRES = (16, 16, 32, 32, 48, 48, 64, 64)
_POOLED_AFTER = (2, 4)


def squeezenet(
    input_shape=(32, 32, 3),
    classes=10,
    seed=0,
    *,
    mean=0.5,
    std=0.5,
    width=1.0,
    bypass=False,
):
    """SqueezeNet of Iandola et al. 2016, https://arxiv.org/abs/1602.07360, in its form 1.1.

    A fire module squeezes by a 1x1 convolution and expands by 1x1 and 3x3 ones side by side.
    Unlike the paper's, convolutions have batch normalisations instead of biases, which makes
    adversarial training start. Images up to 64 pixels a side are reduced by the two poolings
    between the modules only (730,570 trainable weights at 3 channels and 10 classes), larger
    ones by a stride and a pooling before them too (1,238,440 at 1,000 classes).

    Args:
        input_shape: `(height, width, channels)` of images in [0, 1].
        classes: number of logits, >= 2.
        seed: of the initial weights.
        mean: of the images, subtracted inside the model; one number or one a channel.
        std: of the images, divided by inside the model; one number or one a channel.
        width: multiplier of all channel numbers, which stay multiples of 8.
        bypass: whether every second module adds its input to its output ("simple bypass").

    Returns:
        A functional model, `(batch, h, w, c)` in [0, 1] to `(batch, classes)` logits.

    Raises:
        ValueError: an argument out of its range.
    """
    inputs, x = normalized_input(input_shape, classes, seed, mean, std)
    width, seeds, layers = check_width(width), Seeds(seed), keras.layers
    if not isinstance(bypass, bool):
        raise ValueError(f"`bypass` must be True or False, got {bypass!r}.")
    if max(inputs.shape[1:3]) <= SMALL:
        x = _conv(x, scaled(64, width), 3, 1, "stem", seeds)
    else:
        x = _conv(x, scaled(64, width), 3, 2, "stem", seeds)
        x = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    for i, squeezed in enumerate(_FIRES, 1):
        y = _fire(x, scaled(squeezed, width), f"fire{i}", seeds)
        # Those whose input has as many channels.
        add = bypass and i % 2 == 0
        x = layers.Add(name=f"fire{i}_add")([x, y]) if add else y
        if i in _POOLED_AFTER:
            x = layers.MaxPooling2D(3, 2, padding="same", name=f"fire{i}_pool")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    start = keras.initializers.GlorotUniform(seed=seeds())
    logits = layers.Dense(classes, kernel_initializer=start, name="logits")(x)
    return keras.Model(inputs, logits, name="squeezenet")


def _fire(x, squeezed, name, seeds):
    x = _conv(x, squeezed, 1, 1, f"{name}_squeeze", seeds)
    sides = [_conv(x, 4 * squeezed, k, 1, f"{name}_expand{k}", seeds) for k in (1, 3)]
    return keras.layers.Concatenate(name=f"{name}_concat")(sides)
