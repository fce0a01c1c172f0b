"""What the process of `test_binary_distribution.py` runs: nets on one device and on two.

python binary_together.py FILE
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras

two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
STRATEGIES = {
    "single": tf.distribute.get_strategy(),
    "mirrored": tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
}


def data():
    generator = np.random.default_rng(0)
    x = generator.uniform(size=(32, 5, 5, 1)).astype("float32")
    y = (np.arange(32) % 3).astype("int32")
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(16, drop_remainder=True)


def binary(stochastic):
    layers = [
        kr.layers.BinaryConv2D(3, 3, stochastic=stochastic, name="conv"),
        keras.layers.ReLU(),
        keras.layers.Flatten(),
        kr.layers.BinaryDense(3, stochastic=stochastic, name="dense"),
    ]
    return keras.Sequential([keras.Input((5, 5, 1)), *layers])


def pruned():
    start = [keras.initializers.GlorotUniform(seed=seed) for seed in (0, 1)]
    layers = [
        keras.layers.Conv2D(3, 3, activation="relu", kernel_initializer=start[0], name="conv"),
        keras.layers.Flatten(),
        keras.layers.Dense(3, kernel_initializer=start[1], name="dense"),
    ]
    model = keras.Sequential([keras.Input((5, 5, 1)), *layers])
    return kr.compress.keep_zeros(kr.compress.Prune(0.5).apply(model))


def scheduled():
    """The masks that a stage moves while it trains, in the rounds of one `fit`."""
    budget = kr.compress.Budget(most_loss=1.0, step=0.4)
    stage = kr.compress.Prune(0.6, until=budget)
    context = kr.compress._stage.Context(epochs=3, steps=2)
    wrapped = stage.wrap(kr.compress._masks.copy_of(pruned()), context)
    return wrapped, stage.callbacks(wrapped, context)


MODELS = {
    "deterministic": lambda: (binary(False), []),
    "stochastic": lambda: (binary(True), []),
    "pruned": lambda: (pruned(), []),
    "scheduled": scheduled,
}


def copies(variable):
    """A variable as each of two replicas holds it."""
    variable = getattr(variable, "_value", variable)
    return [copy.numpy() for copy in variable.values]


def main():
    found = {}
    for kind, strategy in STRATEGIES.items():
        for name, make in MODELS.items():
            with strategy.scope():
                model, callbacks = make()
                model.compile(
                    keras.optimizers.SGD(0.05, momentum=0.9),
                    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                    metrics=["accuracy"],
                )
            model.fit(data(), validation_data=data(), epochs=3, verbose=0, callbacks=callbacks)
            for layer in model.layers:
                for i, variable in enumerate(layer.trainable_variables):
                    place = f"{name}/{layer.name}/{i}"
                    found[f"{kind}/{place}"] = np.asarray(tf.convert_to_tensor(variable))
                    if kind == "mirrored":
                        found[f"copies/{place}"] = np.stack(copies(variable))
                if getattr(layer, "stochastic", False):
                    found[f"{kind}/{name}/{layer.name}/count"] = np.asarray(
                        tf.convert_to_tensor(layer._count)
                    )
    np.savez(sys.argv[1], **found)


main()
