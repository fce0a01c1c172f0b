"""What several test files need: the seed of numpy's generator and tiny classifiers."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Said aloud, for the command line, which tests call, chooses for itself.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "0")
if "PYTEST_XDIST_WORKER" in os.environ:
    # There is a worker for each core: more threads only get in each other's way.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import tensorflow as tf

from keras_robust._keras import keras


@pytest.fixture
def rng():
    return np.random.default_rng(0)


class Linear:
    """`logits = flatten(x) @ weights + bias`: every attack on it has a closed form."""

    def __init__(self, inputs, classes=2, seed=0):
        generator = np.random.default_rng(seed)
        self.weights = generator.normal(size=(inputs, classes)).astype("float32")
        self.bias = generator.normal(size=classes).astype("float32")

    def __call__(self, x):
        flat = tf.reshape(x, [tf.shape(x)[0], self.weights.shape[0]])
        return tf.matmul(flat, self.weights) + self.bias


@pytest.fixture(scope="session")
def linear():
    return Linear


def make_cnn(shape=(6, 6, 1), classes=3, seed=0, batch_norm=False, dtype=None):
    """A small convolutional network with seeded weights, logits out."""
    layers = keras.layers
    start = [keras.initializers.GlorotUniform(seed=seed + i) for i in range(2)]
    inputs = keras.Input(shape)
    x = layers.Conv2D(4, 3, kernel_initializer=start[0])(inputs)
    if batch_norm:
        x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x)
    x = layers.Flatten()(x)
    x = layers.Dense(classes, kernel_initializer=start[1], dtype=dtype)(x)
    return keras.Model(inputs, x)


@pytest.fixture(scope="session")
def cnn():
    return make_cnn


@pytest.fixture(scope="session")
def blobs():
    """Images of three classes that a small network tells apart: a bright corner each."""

    def make(count=96, seed=0):
        generator = np.random.default_rng(seed)
        y = np.arange(count) % 3
        x = generator.uniform(0, 0.4, size=(count, 6, 6, 1)).astype("float32")
        for label, (row, column) in enumerate([(0, 0), (0, 3), (3, 0)]):
            x[y == label, row : row + 3, column : column + 3] += 0.6
        return x, y.astype("int32")

    return make
