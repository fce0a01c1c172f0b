"""What each process of `test_training.py` runs: some objectives on the same few images.

python train_together.py single|mirrored|multi_worker|cluster|killed FOLDER

The machines of "cluster" have two devices each.
"""

import os
import pathlib
import signal
import sys
import time

import numpy as np
import tensorflow as tf

from keras_robust import distribute

KIND, FOLDER = sys.argv[1], pathlib.Path(sys.argv[2])
if KIND in ("mirrored", "cluster"):
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
# The workers connect before anything else of TensorFlow runs.
STRATEGY = distribute.strategy("multi_worker" if KIND in ("cluster", "killed") else KIND)

import keras_robust as kr  # noqa: E402
from keras_robust._keras import keras  # noqa: E402


class Patterned(kr.attacks.PGD):
    """PGD whose start is a function of the input: the same wherever the row is trained on."""

    def perturb(self, goal, x, seed, eps):
        start = tf.clip_by_value(x + 0.5 * eps * tf.sin(1000.0 * x), 0.0, 1.0)
        climb = kr.attacks.PGD(eps=self.eps, steps=self.steps, random_start=False)
        return climb.perturb(goal, start, seed, eps / 2)


class KillOnce(keras.callbacks.Callback):
    """Kills worker 1 in its second epoch, once."""

    def on_train_batch_end(self, batch, logs=None):
        mark = FOLDER / "killed"
        second = len(list(FOLDER.glob("epoch*"))) > 0
        if second and not distribute.is_chief() and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def on_epoch_end(self, epoch, logs=None):
        (FOLDER / f"epoch{epoch}").touch()


def data(count):
    generator = np.random.default_rng(0)
    x = generator.uniform(size=(count, 6, 6, 1)).astype("float32")
    y = (np.arange(count) % 3).astype("int32")
    return distribute.shard_by_example(tf.data.Dataset.from_tensor_slices((x, y)).batch(16))


def network():
    start = [keras.initializers.GlorotUniform(seed=seed) for seed in (0, 1)]
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu", kernel_initializer=start[0])(inputs)
    x = keras.layers.BatchNormalization(trainable=False)(x)
    x = keras.layers.Flatten(name="flatten")(x)  # Pools go by the names of layers.
    return keras.Model(inputs, keras.layers.Dense(3, kernel_initializer=start[1])(x))


def make(objective, attack):
    with STRATEGY.scope():
        model = network()
        if objective == "feedback":
            trainer = kr.training.LayerFeedback(model, attack, pool=16, renew=0.5)
        else:
            trainer = kr.AdversarialTraining(model, attack, objective)
        trainer.compile(keras.optimizers.SGD(0.05, momentum=0.9), metrics=["accuracy"])
    return trainer


def train(objective, attack, rows=37, interrupt=None, **fit):
    """Two epochs; the weights and the logs.

    Args:
        rows: of the data; of 37 the last batch is 5, which is 3 and 2.
        interrupt: folder by which a second trainer goes on after the first epoch.
    """
    batches = data(rows)
    settings = {"validation_data": batches, "verbose": 0} | fit
    if interrupt is not None:
        settings["resume"] = interrupt
        make(objective, attack).fit(batches, epochs=1, **settings)
        while not (interrupt / "state.npz").exists():  # Only the chief writes it.
            time.sleep(0.05)
    trainer = make(objective, attack)
    history = trainer.fit(batches, epochs=2, **settings)
    weights = np.concatenate([np.ravel(value) for value in trainer.model.get_weights()])
    return weights, [values for _, values in sorted(history.history.items())]


def main():
    plain = kr.attacks.PGD(eps=0.1, steps=2, random_start=False)
    todo = {
        "madry": (kr.objectives.Madry(), plain),
        "trades": (kr.objectives.TRADES(), Patterned(eps=0.1, steps=2)),
        "awp": (kr.objectives.AWP(gamma=0.02), plain),
        "free": (kr.objectives.Free(replays=2), plain),
        "feedback": ("feedback", plain),
    }
    found = {}
    names = {"killed": ["madry"], "cluster": ["awp", "free"]}
    for name in names.get(KIND, todo):
        settings = {}
        if name in ("free", "feedback"):
            # What is carried is kept by row and replica: in a smaller batch other rows meet it.
            settings["rows"] = 32
            several = KIND in ("multi_worker", "cluster")
            settings["interrupt"] = FOLDER / f"{KIND}-{name}" if several else None
        if KIND == "killed":
            settings = {"resume": FOLDER / "state", "callbacks": [KillOnce()]}
        found[name], found[f"{name}_logs"] = train(*todo[name], **settings)
    if KIND == "multi_worker":
        # Only the chief finds a state in a folder that the machines do not share.
        own = {"resume": FOLDER / f"apart-{distribute.is_chief()}", "verbose": 0}
        make(kr.objectives.Madry(), plain).fit(data(32), epochs=1, **own)
        try:
            make(kr.objectives.Madry(), plain).fit(data(32), epochs=2, **own)
        except ValueError as error:
            found["apart"] = str(error)
    if KIND == "mirrored":
        try:
            train(kr.objectives.Madry(), plain, rows=33)
        except tf.errors.InvalidArgumentError as error:
            found["one_row_for_two"] = str(error)
    task = "" if distribute.is_chief() else "-1"
    np.savez(FOLDER / f"{KIND}{task}.npz", **found)


main()
