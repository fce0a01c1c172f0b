"""Small classifiers, built anew for each test."""

import numpy as np
import pytest
import tensorflow as tf

from keras_robust._keras import keras

layers = keras.layers


def functional(classes=3):
    inputs = layers.Input((8, 8, 1))
    h = layers.Rescaling(2.0, -1.0)(inputs)
    h = layers.ReLU()(layers.Conv2D(4, 3)(h))
    h = layers.BatchNormalization()(h)
    h = layers.ReLU()(layers.DepthwiseConv2D(3)(h))
    return keras.Model(inputs, layers.Dense(classes)(layers.Flatten()(h)))


class Subclassed(keras.Model):
    def __init__(self, dtype="float32"):
        super().__init__()
        self.conv, self.flatten = layers.Conv2D(4, 3, dtype=dtype), layers.Flatten()
        self.dense = layers.Dense(3)

    def call(self, x, training=False):
        return self.dense(self.flatten(keras.activations.relu(self.conv(x))))


def sequential():
    return keras.Sequential(
        [layers.Input((8, 8, 1)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3)]
    )


def subclassed(**options):
    model = Subclassed(**options)
    model(np.zeros((1, 8, 8, 1), np.float32))
    return model


def noisy():
    """Returns other logits on every call, so that no file can reproduce it."""

    class Noise(layers.Layer):
        def call(self, x):
            return x + tf.random.normal(tf.shape(x))

    inputs = layers.Input((8, 8, 1))
    return keras.Model(inputs, Noise()(layers.Dense(3)(layers.Flatten()(inputs))))


KINDS = {
    "functional": functional,
    "sequential": sequential,
    "subclassed": subclassed,
    "noisy": noisy,
}


@pytest.fixture
def build():
    """Builds a seeded model by the name of its kind."""

    def make(kind="functional", **options):
        keras.utils.set_random_seed(0)
        return KINDS[kind](**options)

    return make


@pytest.fixture
def model(build):
    return build()


@pytest.fixture
def images():
    return np.random.default_rng(1).random((70, 8, 8, 1), dtype=np.float32)


@pytest.fixture
def quantized(images):
    """A model fake-quantized by TF-MOT and trained a little, so that its ranges are set."""
    import tensorflow_model_optimization as tfmot

    keras.utils.set_random_seed(0)
    inputs = layers.Input((8, 8, 1))
    h = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3)(inputs)))
    plain = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(h)))
    model = tfmot.quantization.keras.quantize_model(plain)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, np.arange(70) % 3, epochs=3, verbose=0)
    return model
