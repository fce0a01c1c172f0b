"""A float64 network with a numpy twin, and the step that hands it to an objective."""

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

import keras_robust as kr
from keras_robust.training.objectives import Step


class Net(tf.Module):
    """Two layers and tanh in float64, so that finite differences and numpy are exact."""

    def __init__(self, inputs=5, hidden=4, classes=3, seed=0):
        super().__init__()
        generator = np.random.default_rng(seed)
        self.w1 = tf.Variable(generator.normal(size=(inputs, hidden)))
        self.b1 = tf.Variable(generator.normal(size=hidden))
        self.w2 = tf.Variable(generator.normal(size=(hidden, classes)))

    def __call__(self, x, training=False):
        x = tf.cast(x, tf.float64)
        return tf.matmul(tf.tanh(tf.matmul(x, self.w1) + self.b1), self.w2)

    def numpy(self, x):
        return np.tanh(x @ self.w1.numpy() + self.b1.numpy()) @ self.w2.numpy()

    def cross_entropy(self, x, y):
        """That of each row, in numpy."""
        return -scipy.special.log_softmax(self.numpy(x), axis=1)[np.arange(len(y)), y]

    def slopes(self, x, y, weight):
        """Those of its weighted mean, by hand: of `b1`, `w1` and `w2`, and of `x`."""
        hidden = np.tanh(x @ self.w1.numpy() + self.b1.numpy())
        wrong = scipy.special.softmax(hidden @ self.w2.numpy(), axis=1) - np.eye(3)[y]
        wrong *= weight[:, None] / len(y)
        below = wrong @ self.w2.numpy().T * (1 - hidden**2)
        return below.sum(axis=0), x.T @ below, hidden.T @ wrong, below @ self.w1.numpy().T


class LinearNet(tf.Module):
    """`x @ w` in float64."""

    def __init__(self, inputs=5, classes=2, seed=0):
        super().__init__()
        self.w = tf.Variable(np.random.default_rng(seed).normal(size=(inputs, classes)))

    def __call__(self, x, training=False):
        return tf.matmul(tf.cast(x, tf.float64), self.w)


@pytest.fixture
def net():
    return Net()


@pytest.fixture
def linear_net():
    return LinearNet()


@pytest.fixture
def batch(rng):
    """`x`, `x_adv` in float32, labels and sample weights."""
    x = rng.uniform(size=(6, 5)).astype("float32")
    x_adv = np.clip(x + rng.uniform(-0.1, 0.1, size=x.shape), 0, 1).astype("float32")
    return x, x_adv, np.array([0, 1, 2, 0, 1, 2]), rng.uniform(0.5, 2, size=6)


@pytest.fixture
def step_for():
    def make(model, attack=None, seed=0, **settings):
        attack = attack or kr.attacks.PGD(0.1, steps=2)

        def compiled(y, logits, weight):
            values = kr.losses.cross_entropy(y, logits)
            return tf.reduce_mean(values if weight is None else values * weight)

        return Step(model, attack, attack.eps, tf.constant([seed, 0]), compiled, **settings)

    return make


@pytest.fixture
def check_gradient():
    """Compares the tape's gradient of `loss()` with central differences of `value()`.

    Eight entries of each variable, drawn once and for all.
    """

    def check(variables, loss, value=None, width=1e-5, tolerance=1e-6):
        generator = np.random.default_rng(0)
        with tf.GradientTape() as tape:
            result = loss()
        for variable, gradient in zip(variables, tape.gradient(result, variables)):
            kept, value = variable.numpy(), value or loss
            for flat in generator.choice(kept.size, min(8, kept.size), replace=False):
                place = np.unravel_index(flat, kept.shape)
                ends = []
                for sign in (1, -1):
                    moved = kept.copy()
                    moved[place] += sign * width
                    variable.assign(moved)
                    ends.append(float(value()))
                variable.assign(kept)
                numeric = (ends[0] - ends[1]) / (2 * width)
                np.testing.assert_allclose(gradient.numpy()[place], numeric, atol=tolerance)

    return check
