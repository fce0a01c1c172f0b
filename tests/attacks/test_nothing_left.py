"""Attacks on rows that are all wrong already: an empty batch must never reach the model."""

import numpy as np
import pytest

from keras_robust import attacks
from keras_robust._keras import keras


@pytest.fixture(scope="module")
def network():
    """Two convolutions and their activations, which TensorFlow fuses on a CPU."""
    layers = [keras.Input((8, 8, 1))]
    for filters in (4, 8):
        layers += [keras.layers.Conv2D(filters, 3), keras.layers.ReLU()]
    return keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(3)])


@pytest.mark.parametrize(
    "attack",
    [
        attacks.APGD(0.1, steps=3, targets=2, loss="margin"),
        attacks.AutoAttack(0.1),
        attacks.CarliniWagner(steps=3),
        attacks.DeepFool(steps=3),
        attacks.ElasticNet(steps=3),
        attacks.FAB(steps=3, targets=2),
        attacks.HopSkipJump(steps=1),
        attacks.LBFGS(),
        attacks.Noise(0.01),
        attacks.Spatial(angles=3, shifts=1),
        attacks.Square(0.1, queries=10),
        attacks.UniversalPerturbation(0.1, epochs=1),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_rows_stay_wrong(network, rng, attack):
    x = rng.uniform(size=(4, 8, 8, 1)).astype("float32")
    own = np.argmax(network(x), axis=-1)
    x_adv = attack(network, x, (own + 1) % 3)
    assert np.all(np.argmax(network(x_adv), axis=-1) != (own + 1) % 3)
