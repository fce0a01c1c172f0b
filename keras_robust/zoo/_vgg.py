"""VGG-19 with batch normalisation."""

from keras_robust._keras import keras
from keras_robust.zoo._inputs import SMALL, Seeds, check_smallest, normalized_input

BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))


def vgg19(input_shape=(32, 32, 3), classes=10, seed=0, *, mean=0.5, std=0.5):
    """VGG-19 of Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556.

    For images up to 64 pixels a side the CIFAR form: batch normalisation after each of the
    16 convolutions, global average pooling and one dense layer, 20,035,018 trainable weights
    at 10 classes. For larger ones the two dense layers of 4,096 units follow, as in the paper.

    Args:
        input_shape: `(height, width, channels)` of images in [0, 1], at least 32 x 32.
        classes: number of logits, >= 2.
        seed: of the initial weights.
        mean: of the images, subtracted inside the model; one number or one a channel.
        std: of the images, divided by inside the model; one number or one a channel.

    Returns:
        A functional model, `(batch, h, w, c)` in [0, 1] to `(batch, classes)` logits.

    Raises:
        ValueError: an argument out of its range.
    """
    shape = check_smallest(input_shape, 32, "vgg19")
    inputs, x = normalized_input(shape, classes, seed, mean, std)
    seeds, layers = Seeds(seed), keras.layers

    def he():
        return keras.initializers.HeNormal(seed=seeds())

    for block, (depth, filters) in enumerate(BLOCKS, 1):
        for i in range(1, depth + 1):
            name = f"{block}_{i}"
            # The shift of the normalisation stands in for the bias.
            x = layers.Conv2D(
                filters, 3, padding="same", use_bias=False, kernel_initializer=he(),
                name=f"conv{name}",
            )(x)  # fmt: skip
            x = layers.BatchNormalization(name=f"bn{name}")(x)
            x = layers.ReLU(name=f"relu{name}")(x)
        x = layers.MaxPooling2D(name=f"pool{block}")(x)
    if max(shape[:2]) <= SMALL:
        x = layers.GlobalAveragePooling2D(name="pool")(x)
    else:
        x = layers.Flatten(name="flatten")(x)
        for i in (1, 2):
            x = layers.Dense(4096, kernel_initializer=he(), name=f"dense{i}")(x)
            x = layers.ReLU(name=f"relu_dense{i}")(x)
    start = keras.initializers.GlorotUniform(seed=seeds())
    logits = layers.Dense(classes, kernel_initializer=start, name="logits")(x)
    return keras.Model(inputs, logits, name="vgg19")
