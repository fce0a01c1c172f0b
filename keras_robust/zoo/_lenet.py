"""LeNet-300-100 and LeNet-5, the two small nets that the pruning papers compress."""

from keras_robust._keras import keras
from keras_robust.zoo._inputs import Seeds, check_smallest, normalized_input


def lenet_300_100(input_shape=(28, 28, 1), classes=10, seed=0, *, mean=0.5, std=0.5):
    """Two hidden layers of 300 and 100 units; 266,610 weights at 28x28x1.

    LeCun et al. 1998, and the subject of Han et al. 2016, https://arxiv.org/abs/1510.00149.

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

    >>> lenet_300_100().count_params()
    266610
    """
    inputs, x = normalized_input(input_shape, classes, seed, mean, std)
    seeds = Seeds(seed)
    x = keras.layers.Flatten(name="flatten")(x)
    for i, units in enumerate((300, 100), 1):
        x = _dense(units, f"dense{i}", seeds)(x)
        x = keras.layers.ReLU(name=f"relu{i}")(x)
    return keras.Model(inputs, _dense(classes, "logits", seeds)(x), name="lenet_300_100")


def lenet5(input_shape=(28, 28, 1), classes=10, seed=0, *, mean=0.5, std=0.5):
    """Caffe's LeNet-5: 5x5 convolutions to 20 and 50 channels, 500 units; 431,080 weights.

    The net that Han et al. 2016, https://arxiv.org/abs/1510.00149, compress ("431K"). As in
    Caffe its convolutions are unpadded, and only the hidden dense layer has a ReLU.

    Args:
        input_shape: `(height, width, channels)` of images in [0, 1], at least 16 x 16.
        classes: number of logits, >= 2.
        seed: of the initial weights.
        mean: of the images, subtracted inside the model; one number or one a channel.
        std: of the images, divided by inside the model; one number or one a channel.

    Returns:
        A functional model, `(batch, h, w, c)` in [0, 1] to `(batch, classes)` logits.

    Raises:
        ValueError: an argument out of its range.

    >>> lenet5().count_params()
    431080
    """
    check_smallest(input_shape, 16, "lenet5")
    inputs, x = normalized_input(input_shape, classes, seed, mean, std)
    seeds = Seeds(seed)
    for i, filters in enumerate((20, 50), 1):
        start = keras.initializers.GlorotUniform(seed=seeds())
        x = keras.layers.Conv2D(filters, 5, kernel_initializer=start, name=f"conv{i}")(x)
        x = keras.layers.MaxPooling2D(name=f"pool{i}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = _dense(500, "dense1", seeds)(x)
    x = keras.layers.ReLU(name="relu1")(x)
    return keras.Model(inputs, _dense(classes, "logits", seeds)(x), name="lenet5")


def _dense(units, name, seeds):
    start = keras.initializers.GlorotUniform(seed=seeds())
    return keras.layers.Dense(units, kernel_initializer=start, name=name)
