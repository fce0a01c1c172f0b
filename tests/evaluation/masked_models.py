"""Models that only look robust, and honest ones beside them, trained in seconds."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras

# At this linf radius natural networks on these images fall, and masked ones seem to stand.
EPS = 0.1
_TEMPERATURE = 100.0


@keras.utils.register_keras_serializable("keras_robust_tests")
class Rounded(keras.layers.Layer):
    """Rounds to multiples of `1 / levels`, with a gradient of exactly zero."""

    def __init__(self, levels, **kwargs):
        super().__init__(**kwargs)
        self.levels = levels

    def call(self, inputs):
        # The sum gives a gradient of zero where tf.round alone has none, which attacks refuse.
        return tf.round(inputs * self.levels) / self.levels + 0.0 * inputs

    def get_config(self):
        return {**super().get_config(), "levels": self.levels}


@keras.utils.register_keras_serializable("keras_robust_tests")
class Noisy(keras.layers.Layer):
    """Adds fresh Gaussian noise at every call."""

    def __init__(self, scale, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def call(self, inputs):
        return inputs + self.scale * tf.random.normal(tf.shape(inputs))

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


@dataclasses.dataclass(frozen=True)
class Images:
    """Embedded Fashion-MNIST at 14x14, floats in [0, 1]."""

    x_train: np.ndarray
    y_train: np.ndarray
    x: np.ndarray
    y: np.ndarray


@functools.cache
def images() -> Images:
    data = kr.data.load("embedded")

    def small(split, limit):
        x, y = kr.data.arrays(split, limit)
        return x.reshape(-1, 14, 2, 14, 2, 1).mean((2, 4)).astype("float32"), y

    return Images(*small(data.train, 4000), *small(data.test, 200))


def network(seed=0, first=()):
    """A dense network with one hidden layer, behind the layers `first`."""
    starts = [keras.initializers.GlorotUniform(seed + number) for number in range(2)]
    return keras.Sequential(
        [
            keras.Input((14, 14, 1)),
            *first,
            keras.layers.Flatten(),
            keras.layers.Dense(64, "relu", kernel_initializer=starts[0]),
            keras.layers.Dense(10, kernel_initializer=starts[1]),
        ]
    )


def train(model, x, targets, *, temperature=1.0, epochs=10, attack=None, batch=100):
    """Minimises the cross-entropy of `logits / temperature` with probabilities `targets`."""
    optimizer = keras.optimizers.Adam(0.003)
    optimizer.build(model.trainable_variables)

    @tf.function(autograph=False)
    def step(x, y, number):
        if attack is not None:
            x = attack(model, x, tf.argmax(y, -1, tf.int32), seed=number)
        with tf.GradientTape() as tape:
            logits = model(x, training=True) / temperature
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(y, logits))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))

    generator = np.random.default_rng(0)
    for epoch in range(epochs):
        order = generator.permutation(len(x)).reshape(-1, batch)
        for index, rows in enumerate(order):
            step(tf.constant(x[rows]), tf.constant(targets[rows]), tf.constant([epoch, index]))
    return model


def _one_hot():
    return np.eye(10, dtype="float32")[images().y_train]


@functools.cache
def natural():
    return train(network(), images().x_train, _one_hot())


@functools.cache
def robust():
    attack = kr.attacks.PGD(EPS, steps=5)
    return train(network(), images().x_train, _one_hot(), attack=attack)


@functools.cache
def distilled():
    """Defensive distillation, Papernot et al. 2016, https://arxiv.org/abs/1511.04508.

    Teacher and student trained at temperature 100, the student used at 1.
    """
    x = images().x_train
    settings = {"temperature": _TEMPERATURE, "epochs": 25}
    teacher = train(network(), x, _one_hot(), **settings)
    soft = tf.nn.softmax(teacher(x) / _TEMPERATURE).numpy()
    return train(network(2), x, soft, **settings)


def _in_front(layer, model):
    """`model` behind `layer`, with its own weights."""
    front = network(first=[layer])
    front.set_weights(model.get_weights())
    return front


@functools.cache
def rounded():
    return _in_front(Rounded(3), natural())


@functools.cache
def noisy():
    return _in_front(Noisy(0.3), natural())


@functools.cache
def saturated():
    model = network()
    weights = natural().get_weights()
    model.set_weights([*weights[:2], 3000 * weights[2], 3000 * weights[3]])
    return model


MASKED = {"distilled": distilled, "rounded": rounded, "saturated": saturated, "noisy": noisy}
HONEST = {"natural": natural, "robust": robust}


@pytest.fixture
def small_images():
    """`Images` that the masked models were trained on and 200 to test them on."""
    return images()


@pytest.fixture
def masked_model():
    """Name -> model: "distilled", "rounded", "saturated", "noisy", "natural", "robust"."""
    return lambda name: {**MASKED, **HONEST}[name]()
