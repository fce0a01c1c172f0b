"""ResNet-18 and ResNet-50 of plain Keras layers.

Written here rather than taken from keras-cv 0.9: its backbone has the 7x7 stem built in, a
projection too many in ResNet-18 and initial weights without a seed; its named ones ask Kaggle
for their configuration, and importing it under tf_keras brings in two more Kerases.
"""

from keras_robust._keras import keras
from keras_robust.zoo._inputs import SMALL, Seeds, normalized_input


def resnet18(input_shape=(32, 32, 3), classes=10, seed=0, *, mean=0.5, std=0.5):
    """ResNet-18 of He et al. 2016, https://arxiv.org/abs/1512.03385.

    Images up to 64 pixels a side get the stem of the CIFAR form (3x3, stride 1, no pooling;
    11,173,962 trainable weights at 3 channels and 10 classes), larger ones the paper's.

    Args:
        input_shape: `(height, width, channels)` of images in [0, 1].
        classes: number of logits, >= 2.
        seed: of the initial weights.
        mean: of the images, subtracted inside the model; one number or one a channel.
        std: of the images, divided by inside the model; one number or one a channel.

    Returns:
        A functional model, `(batch, h, w, c)` in [0, 1] to `(batch, classes)` logits.

    Raises:
        ValueError: an argument out of its range.
    """
    inputs, x = normalized_input(input_shape, classes, seed, mean, std)
    return _resnet("resnet18", inputs, x, classes, seed, _basic, (2, 2, 2, 2))


def resnet50(input_shape=(32, 32, 3), classes=10, seed=0, *, mean=0.5, std=0.5):
    """ResNet-50 of He et al. 2016, https://arxiv.org/abs/1512.03385.

    The stride of a block sits in its 3x3 convolution ("v1.5", as in torchvision). Images up to
    64 pixels a side get a 3x3 stem of stride 1 without pooling, larger ones the paper's
    (25,557,032 trainable weights at 3 channels and 1,000 classes).

    Args:
        input_shape: `(height, width, channels)` of images in [0, 1].
        classes: number of logits, >= 2.
        seed: of the initial weights.
        mean: of the images, subtracted inside the model; one number or one a channel.
        std: of the images, divided by inside the model; one number or one a channel.

    Returns:
        A functional model, `(batch, h, w, c)` in [0, 1] to `(batch, classes)` logits.

    Raises:
        ValueError: an argument out of its range.
    """
    inputs, x = normalized_input(input_shape, classes, seed, mean, std)
    return _resnet("resnet50", inputs, x, classes, seed, _bottleneck, (3, 4, 6, 3))


def _resnet(name, inputs, x, classes, seed, block, depths):
    layers, seeds = keras.layers, Seeds(seed)
    if max(inputs.shape[1:3]) <= SMALL:
        x = _conv(x, 64, 3, 1, "stem", seeds)
    else:
        x = _conv(x, 64, 7, 2, "stem", seeds)
        x = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    for stage, depth in enumerate(depths):
        for i in range(depth):
            stride = 2 if stage > 0 and i == 0 else 1
            x = block(x, 64 * 2**stage, stride, f"block{stage + 1}_{i + 1}", seeds)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    start = keras.initializers.GlorotUniform(seed=seeds())
    logits = layers.Dense(classes, kernel_initializer=start, name="logits")(x)
    return keras.Model(inputs, logits, name=name)


def _basic(x, filters, stride, name, seeds):
    y = _conv(x, filters, 3, stride, f"{name}_a", seeds)
    y = _conv(y, filters, 3, 1, f"{name}_b", seeds, relu=False)
    return _add(x, y, stride, name, seeds)


def _bottleneck(x, filters, stride, name, seeds):
    y = _conv(x, filters, 1, 1, f"{name}_a", seeds)
    y = _conv(y, filters, 3, stride, f"{name}_b", seeds)
    y = _conv(y, 4 * filters, 1, 1, f"{name}_c", seeds, relu=False)
    return _add(x, y, stride, name, seeds)


def _add(x, y, stride, name, seeds):
    """Activated sum of the branch `y` and the shortcut, projected where the shape changes."""
    if stride != 1 or x.shape[-1] != y.shape[-1]:
        x = _conv(x, y.shape[-1], 1, stride, f"{name}_short", seeds, relu=False)
    y = keras.layers.Add(name=f"{name}_add")([x, y])
    return keras.layers.ReLU(name=f"{name}_relu")(y)


def _conv(x, filters, size, stride, name, seeds, relu=True):
    start = keras.initializers.HeNormal(seed=seeds())
    x = keras.layers.Conv2D(
        filters, size, stride, padding="same", use_bias=False, kernel_initializer=start,
        name=f"{name}_conv",
    )(x)  # fmt: skip
    # 0.9 and 1e-5 as in the paper's code; Keras's 0.99 lags behind in short trainings.
    x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x) if relu else x
