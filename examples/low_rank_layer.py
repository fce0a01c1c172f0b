"""What the low-rank virtual layer does for representations, on CIFAR-10.

    python examples/low_rank_layer.py --quick     # about a minute
    python examples/low_rank_layer.py             # the tables below
"""

import argparse
import os
import pathlib

import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras

DATA = pathlib.Path(os.environ.get("KERAS_ROBUST_DATA", "../shared/data"))
MODELS = {"N-LR": 0, "1-LR": 1, "2-LR": 2}


def main(arguments=None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="little data, short training")
    parser.add_argument("--data", type=pathlib.Path, default=DATA, help="folder of the data set")
    parser.add_argument("--output", type=pathlib.Path, default="low_rank_layer", help="of results")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    data = kr.data.load(
        options.data / "cifar10_subset.npz",
        batch_size=None,
        limit=1500 if options.quick else None,
    )
    width, epochs = (8, 4) if options.quick else (16, 24)
    for name in options.models:
        trained(options.output / f"{name}.keras", MODELS[name], data, width, epochs)


def trained(path, low_rank, data, width, epochs):
    """The model on disk at `path`, or a new one that is trained and kept there."""
    if path.exists():
        return keras.models.load_model(path, compile=False)
    print(f"training {path.stem}", flush=True)
    keras.utils.set_random_seed(0)
    model = network(low_rank, width)
    batches = augmented(data.train)
    rate = keras.optimizers.schedules.CosineDecay(0.1, epochs * int(batches.cardinality()))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    validation = data.test.batch(250)
    model.fit(batches, epochs=epochs, validation_data=validation, verbose=2)
    model.save(path)
    return model


def network(low_rank=0, width=16, rank=10, wide_rank=100):
    """A ResNet of four blocks; a low-rank layer before the classifier, and one before block 4."""
    inputs = keras.Input((32, 32, 3), name="image")
    x = keras.layers.Rescaling(4.0, -2.0, name="normalize")(inputs)
    x = convolution(x, width, 1, "stem")
    for block in range(1, 5):
        if block == 4 and low_rank == 2:
            x = kr.layers.LowRankVirtual(wide_rank, name="low_rank_block3")(x)
        stride, filters = 1 if block == 1 else 2, width * 2 ** (block - 1)
        y = convolution(x, filters, stride, f"block{block}_a")
        y = convolution(y, filters, 1, f"block{block}_b", relu=False)
        if stride != 1:
            x = convolution(x, filters, stride, f"block{block}_short", size=1, relu=False)
        x = keras.layers.Add(name=f"block{block}_add")([x, y])
        x = keras.layers.ReLU(name=f"block{block}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    if low_rank:
        x = kr.layers.LowRankVirtual(rank, name="low_rank_pool")(x)
    return keras.Model(inputs, keras.layers.Dense(10, name="logits")(x))


def convolution(x, filters, stride, name, size=3, relu=True):
    decay = keras.regularizers.L2(2.5e-4)
    x = keras.layers.Conv2D(
        filters, size, stride, padding="same", use_bias=False, kernel_initializer="he_normal",
        kernel_regularizer=decay, name=f"{name}_conv",
    )(x)  # fmt: skip
    x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x) if relu else x


def augmented(images, batch=128):
    """Batches of images that were shifted by up to 4 pixels and mirrored at random."""

    def augment(image_and_label, seed):
        image, label = image_and_label
        image = tf.pad(image, [[4, 4], [4, 4], [0, 0]], "REFLECT")
        image = tf.image.stateless_random_crop(image, (32, 32, 3), seed)
        return tf.image.stateless_random_flip_left_right(image, seed + 1), label

    seeds = tf.data.Dataset.random(seed=0, rerandomize_each_iteration=True).batch(2)
    pairs = tf.data.Dataset.zip((images, seeds)).map(augment)
    return pairs.batch(batch, drop_remainder=True).prefetch(2)


if __name__ == "__main__":
    main()
