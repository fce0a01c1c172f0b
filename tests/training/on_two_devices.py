"""What `test_two_devices.py` runs: the same training on one device and on two logical CPUs.

python on_two_devices.py objectives|noise|callbacks FILE
"""

import collections
import dataclasses
import os
import sys
import tempfile
import typing
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)

import keras_robust as kr  # noqa: E402
from keras_robust._keras import LEGACY, keras, steps_taken  # noqa: E402
from keras_robust.attacks._threat import Ball  # noqa: E402
from keras_robust.training.objectives import Madry, Objective, Outcome, _vat  # noqa: E402

STRATEGIES = {kind: kr.distribute.strategy(kind) for kind in ("single", "mirrored")}
ONE_HOT = keras.losses.CategoricalCrossentropy(from_logits=True)
OBJECTIVES = {
    "Madry": kr.objectives.Madry,
    "TRADES": kr.objectives.TRADES,
    "MART": kr.objectives.MART,
    "ALP": kr.objectives.ALP,
    "Mixed": kr.objectives.Mixed,
    "VAT": kr.objectives.VAT,
    "GradientPenalty": kr.objectives.GradientPenalty,
    "Fast": kr.objectives.Fast,
    "Fast, aligned": lambda: kr.objectives.Fast(grad_align=2.0),
    "Free": lambda: kr.objectives.Free(replays=2),
    "AWP of TRADES": lambda: kr.objectives.AWP(0.05, kr.objectives.TRADES()),
    "Distil": lambda: kr.objectives.Distil([make_model(seed=8)]),
    "Distil, rslad": lambda: kr.objectives.Distil([make_model(seed=8)], method="rslad"),
    # It draws a network for each replica: of one there is no choice.
    "Ensemble": lambda: kr.objectives.Ensemble([make_model(seed=7)], own=False),
}


def make_model(seed=0, batch_norm=False):
    start = [keras.initializers.GlorotUniform(seed=seed + i) for i in range(2)]
    inputs = keras.Input((6,))
    x = keras.layers.Dense(5, "tanh", kernel_initializer=start[0], name="hidden")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x) if batch_norm else x
    return keras.Model(inputs, keras.layers.Dense(3, kernel_initializer=start[1])(x))


def make_data(one_hot=False, rows=21):
    """Rows of three classes, and weights; of 21 the last batch is 5, which is 3 and 2."""
    generator = np.random.default_rng(0)
    x = generator.uniform(0, 0.5, size=(rows, 6)).astype("float32")
    y = (np.arange(rows) % 3).astype("int32")
    x[np.arange(rows), y] += 0.5
    y = np.eye(3, dtype="float32")[y] if one_hot else y
    return x, y, generator.uniform(0.5, 1.5, size=rows).astype("float32")


def make_trainer(kind, objective, loss=None, rate=0.3, **settings):
    with STRATEGIES[kind].scope():
        model = make_model(**settings)
        # Steps so short that the end depends on the start.
        attack = kr.attacks.PGD(0.1, steps=2, step_size=0.03)
        trainer = kr.AdversarialTraining(model, attack, objective)
        trainer.compile(keras.optimizers.SGD(rate), loss, metrics=["accuracy"])
    return trainer


def fit(trainer, data, epochs=2, callbacks=()):
    batches = tf.data.Dataset.from_tensor_slices(data).batch(8)
    history = trainer.fit(batches, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return flat(trainer.model), np.array([v for _, v in sorted(history.history.items())])


def flat(model):
    return np.concatenate([np.ravel(value) for value in model.get_weights()])


def train_objectives():
    """Each with sample weights; random points are functions of the row, wherever it is."""
    Ball.random = lambda ball, x, seed: ball.project(0.5 * ball.eps * tf.sin(1000.0 * x), x)
    _vat.normal = lambda shape, seed: tf.broadcast_to(tf.sin(tf.range(6.0)), shape)
    found = {"start": flat(make_model())}
    for name, make in OBJECTIVES.items():
        x, y, weight = make_data()
        # What Free carries is kept by row and replica: in a smaller batch other rows meet it.
        rows = 16 if name == "Free" else 21
        for kind in STRATEGIES:
            result = fit(make_trainer(kind, make()), (x[:rows], y[:rows], weight[:rows]))
            found[f"{name} {kind}"], found[f"{name} {kind} logs"] = result
    for kind in STRATEGIES:
        result = fit(make_trainer(kind, Madry(), ONE_HOT), make_data(one_hot=True))
        found[f"one-hot {kind}"], found[f"one-hot {kind} logs"] = result
    try:
        make_trainer("mirrored", Madry()).compile("sgd", jit_compile=True)
    except ValueError as error:
        found["xla"] = str(error)
    return found


@dataclasses.dataclass(frozen=True)
class Watched(Objective):
    """`inner`, and a note of how far each replica's examples are from the inputs."""

    inner: Objective
    notes: typing.Any

    def perturb(self, step, x, y):
        x_adv = self.inner.perturb(step, x, y)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        tf.numpy_function(self._note, [replica, x_adv - x], [])
        return x_adv

    def minimise(self, *arguments):
        return self.inner.minimise(*arguments)

    def _note(self, replica, delta):
        self.notes[int(replica)].append(delta)


def draw_noise():
    """On a batch whose halves are equal, so that the replicas differ by their noise alone.

    At rate 0, so that one step differs from another by its noise alone too.
    """
    found = {}
    x, y, _ = make_data()
    twice = [np.concatenate([values[:4]] * 2) for values in (x, y)]
    for name in ("Madry", "VAT", "Fast"):
        for run in range(2):
            notes = collections.defaultdict(list)
            trainer = make_trainer("mirrored", Watched(OBJECTIVES[name](), notes), rate=0.0)
            found[f"{name} {run} weights"] = fit(trainer, tuple(twice))[0]
            found[f"{name} {run}"] = np.array([notes[0], notes[1]])
    return found | resume()


def resume():
    """Four epochs at once, and two and two: orders, noise, what is carried, averages."""
    found = {}
    for name in ("Madry", "Free"):
        with tempfile.TemporaryDirectory() as folder:
            for run, ends in (("whole", [4]), ("again", [2, 4])):
                for epochs in ends:
                    trainer = make_trainer("mirrored", OBJECTIVES[name]())
                    data = tf.data.Dataset.from_tensor_slices(make_data()).shuffle(21, seed=3)
                    average = kr.training.WeightAverage(decay=0.6)
                    given = {"resume": f"{folder}/{run}", "callbacks": [average], "verbose": 0}
                    trainer.fit(data.batch(8), epochs=epochs, **given)
                    found[f"{name} {run} {epochs}"] = flat(trainer.model)
                with average.applied():
                    found[f"{name} {run} average"] = flat(trainer.model)
    return found


@dataclasses.dataclass(frozen=True)
class Collapsing(Objective):
    """Madry's objective that turns round after `good` steps, and so provokes a collapse."""

    trainers: list
    good: int = 18

    def perturb(self, step, x, y):
        return step.attacked(x, y)

    def minimise(self, step, x, x_adv, y, sample_weight):
        loss, logits, _ = Madry().minimise(step, x, x_adv, y, sample_weight)
        sign = tf.where(steps_taken(self.trainers[0]) < self.good, 1.0, -1.0)
        return Outcome(sign * loss, logits, logits)


class Weights(keras.callbacks.Callback):
    """Those after each epoch, before what later callbacks make of them."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(flat(self.model.model))


def train_with_callbacks():
    Ball.random = lambda ball, x, seed: tf.zeros_like(x)
    found, data = {}, make_data(rows=20)
    for kind in STRATEGIES:
        for name, decay in (("moving", 0.6), ("mean", None)):
            average = kr.training.WeightAverage(data[:2], decay=decay)
            trainer = make_trainer(kind, Madry())
            result = fit(trainer, data, 3, [average])
            found[f"{name} {kind}"], found[f"{name} {kind} logs"] = result
            with average.applied():
                found[f"{name} {kind} average"] = flat(trainer.model)
            found[f"{name} {kind} after"] = flat(trainer.model)

        trainers, seen = [], Weights()
        trainers.append(make_trainer(kind, Collapsing(trainers), rate=1.0))
        guard = kr.training.OverfittingGuard(*data[:2], every=3, drop=0.2)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = fit(trainers[0], data, 10, [seen, guard])
        found[f"guard {kind}"], found[f"guard {kind} logs"] = result
        found[f"guard {kind} said"] = [str(w.message) for w in caught if "fell" in str(w.message)]
        found[f"guard {kind} seen"] = seen.seen

        lasso = kr.training.ProximalGroupLasso(kr.layers.GroupLasso(0.5), layers=["hidden"])
        result = fit(make_trainer(kind, Madry()), data, 2, [lasso])
        found[f"lasso {kind}"], found[f"lasso {kind} logs"] = result
    return found | measure_batch_norm(data) | build_late(data)


def build_late(data):
    """A model that only its first call builds: whether its weights are on both devices."""
    with STRATEGIES["mirrored"].scope():
        model = keras.Sequential([keras.layers.Dense(3)])
        trainer = kr.AdversarialTraining(model, kr.attacks.PGD(0.1, steps=2))
        trainer.compile(keras.optimizers.SGD(0.3))
    fit(trainer, data, 1)
    kernel = model.layers[0].kernel if LEGACY else model.layers[0].kernel.value
    return {"late": len(STRATEGIES["mirrored"].experimental_local_results(kernel))}


def measure_batch_norm(data):
    """What the average's BatchNorm holds under two replicas, and what it should."""
    images = tf.data.Dataset.from_tensor_slices(data[0]).batch(10)
    average = kr.training.WeightAverage(decay=0.6, batch_norm=images)
    trainer = make_trainer("mirrored", Madry(), batch_norm=True)
    fit(trainer, data, 2, [average])
    with average.applied():
        model = trainer.model
        seen = [model.get_layer("hidden")(batch).numpy().mean(axis=0) for batch in images]
        held = model.get_layer("norm").get_weights()[2]
    return {"measured": held, "seen": np.mean(seen, axis=0)}


WHAT = {"objectives": train_objectives, "noise": draw_noise, "callbacks": train_with_callbacks}
np.savez(sys.argv[2], **WHAT[sys.argv[1]]())
