"""Noise: each value changes by itself."""

import numpy as np

from keras_robust.data.corruptions._level import Corruption


def gaussian_noise(x, level, draws):
    """Normal noise of standard deviation `level`: poor light."""
    return x + np.float32(level) * draws.normal(x.shape[1:])


def shot_noise(x, level, draws):
    """Poisson noise, `level` photons for white: light comes in quanta."""
    return draws.poisson(x * np.float32(level)) / np.float32(level)


def impulse_noise(x, level, draws):
    """A share `level` of the values becomes 0 or 1, in halves: broken bits."""
    hit = draws.uniform(0, 1, x.shape[1:]) < level
    salt = draws.uniform(0, 1, x.shape[1:]) < 0.5
    return np.where(hit, salt.astype(np.float32), x)


NOISE = {
    "gaussian_noise": Corruption(
        "noise", gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)
    ),
    "shot_noise": Corruption("noise", shot_noise, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    "impulse_noise": Corruption(
        "noise", impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)
    ),
}
