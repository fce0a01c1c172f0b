"""What each process of `test_distribution.py` runs: one model, one global batch, a few steps.

python train_together.py single|mirrored|multi_worker FOLDER
"""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from keras_robust import distribute

KIND, FOLDER = sys.argv[1], pathlib.Path(sys.argv[2])
if KIND == "mirrored":
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
# The workers connect before anything else of TensorFlow runs.
STRATEGY = distribute.strategy(KIND)

import keras_robust as kr  # noqa: E402
from keras_robust._keras import keras  # noqa: E402

METHODS = ("svd", "ensemble", "factored")


def network(method):
    start = [keras.initializers.GlorotUniform(seed=seed) for seed in (0, 1)]
    layer = kr.layers.LowRankVirtual(3, every=2, method=method, name="lr")
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(16, activation="tanh", kernel_initializer=start[0]),
            layer,
            keras.layers.Dense(3, kernel_initializer=start[1]),
        ]
    )


def copies(layer):
    """The layer's first variable as each of the two replicas holds it."""
    variable = layer.weights[0]
    return np.stack([copy.numpy() for copy in getattr(variable, "_value", variable).values])


def main():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(64, 6)).astype("float32"), np.arange(64) % 3
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16, drop_remainder=True)
    found = {}
    for method in METHODS:
        with STRATEGY.scope():
            model = network(method)
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            trained = model
            if KIND == "multi_worker":
                # Keras 3 by itself cannot fit under several workers, our trainer can. At radius
                # 0 it trains on the images as they are.
                trained = kr.AdversarialTraining(model, kr.attacks.FGSM(0.0, bounds=(-9.0, 9.0)))
            trained.compile(keras.optimizers.SGD(0.1), loss)
        logs = trained.fit(distribute.shard_by_example(data), epochs=2, verbose=0).history
        layer = model.get_layer("lr")
        found[f"{method}_weights"] = np.concatenate(
            [v.numpy().ravel() for v in model.trainable_variables]
        )
        found[f"{method}_w"] = layer.w.numpy()
        found[f"{method}_logs"] = np.array(
            [logs[name] for name in ("loss", "lr_projection_loss", "lr_norm_loss")]
        )
        if KIND == "mirrored":
            found[f"{method}_copies"] = copies(layer)
    index = 0 if distribute.is_chief() else 1
    np.savez(FOLDER / f"{KIND}{index or ''}.npz", **found)


main()
