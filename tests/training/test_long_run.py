"""Thousands of steps trace their step once and keep no memory."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras

EVERY = 100  # Steps of an epoch.
OBJECTIVES = {
    "madry": lambda: kr.objectives.Madry(),
    "free": lambda: kr.objectives.Free(replays=2),
}


class Traced(keras.layers.Layer):
    """Passes its input on and counts in Python the calls that are traced."""

    in_training = 0
    in_inference = 0

    def call(self, inputs, training=None):
        if not tf.executing_eagerly():
            self.in_training += bool(training)
            self.in_inference += not training
        return inputs

    def compute_output_shape(self, shape):
        return shape


class Memory(keras.callbacks.Callback):
    """What the process holds, in MiB, at the steps asked for; and the traces of the first epoch."""

    def __init__(self, traced, at=()):
        super().__init__()
        self.traced, self.at, self.found, self.first = traced, set(at), {}, None

    def on_epoch_end(self, epoch, logs=None):
        step = EVERY * (epoch + 1)
        if self.first is None:
            self.first = (self.traced.in_training, self.traced.in_inference)
        if step in self.at:
            pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
            self.found[step] = pages * 4096 / 2**20


def run(name, steps, at=()):
    """Trains so many steps with all that a run has: PGD, ramp, averages, validation."""
    traced = Traced()
    layers = [keras.layers.Dense(8, "relu"), traced, keras.layers.BatchNormalization()]
    model = keras.Sequential([keras.Input((6,)), *layers, keras.layers.Dense(3)])
    generator = np.random.default_rng(0)
    x = generator.uniform(size=(64, 6)).astype("float32")
    y = x[:, :3].argmax(axis=1).astype("int32")
    objective = OBJECTIVES[name]()
    batches = EVERY // objective.replays
    data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(64, seed=0).repeat().batch(8)
    trainer = kr.AdversarialTraining(
        model,
        kr.attacks.PGD(eps=0.05, steps=2),
        objective,
        eps_ramp=kr.training.Ramp(steps=steps // 2),
    )
    trainer.compile(keras.optimizers.Adam(1e-3), metrics=["accuracy"], jit_compile=False)
    memory = Memory(traced, at)
    average = kr.training.WeightAverage((x, y), decay=0.99)
    trainer.fit(
        data,
        epochs=steps // EVERY,
        steps_per_epoch=batches,
        validation_data=(x, y),
        callbacks=[average, memory],
        verbose=0,
    )
    assert int(trainer.optimizer.iterations) == steps
    assert traced.in_training == memory.first[0] == objective.replays
    assert traced.in_inference == memory.first[1]
    return memory.found


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_is_traced_once(name):
    run(name, 500)


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("name", OBJECTIVES)
def test_20_000_steps_keep_memory_flat(name):
    found = run(name, 20_000, at=(2_000, 5_000, 10_000, 15_000, 20_000))
    print(name, {step: round(size, 1) for step, size in found.items()})
    assert found[20_000] - found[2_000] < 8
