"""Weather: something between the camera and the scene, or too much light."""

import numpy as np

from keras_robust.data.corruptions._filters import motion, zoom
from keras_robust.data.corruptions._frost import frost_plates
from keras_robust.data.corruptions._level import Corruption

# Rec. 601, the grey of colour pictures.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def snow(x, level, draws):
    """Falling flakes and a whitened scene.

    Level: mean and spread of the noise that flakes are cut from, its enlargement, the threshold,
    radius and sigma of the falling, and how much of the scene keeps its colour.
    """
    mean, spread, size, threshold, radius, sigma, kept = level
    flakes = mean + np.float32(spread) * draws.normal((*x.shape[1:3], 1))
    flakes = zoom(flakes, size)
    flakes = np.where(flakes < threshold, 0, flakes).clip(0, 1)
    flakes = motion(flakes, radius, sigma, draws.uniform(-135, -45))
    grey = x if x.shape[-1] == 1 else (x @ _LUMA)[..., None]
    scene = kept * x + (1 - kept) * np.maximum(x, 1.5 * grey + 0.5)
    return scene + flakes + flakes[:, ::-1, ::-1]


def frost(x, level, draws):
    """Ice on the lens. Level: the weights of the scene and of the ice."""
    scene, ice = level
    return scene * x + ice * frost_plates(x.shape[1:], draws)


def fog(x, level, draws):
    """Uneven fog. Level: its thickness, and how fast its finer parts fade."""
    thickness, decay = level
    height, width = x.shape[1:3]
    layer = plasma(max(height, width), decay, draws)[:, :height, :width, None]
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    return (x + thickness * layer) * brightest / (brightest + thickness)


def plasma(side: int, decay: float, draws) -> np.ndarray:
    """Clouds in [0, 1], `(n, m, m)` with `m >= side` a power of two, periodic.

    Diamond-square: the middles of squares, then of their edges, become the mean of the four
    points around them plus uniform noise, which is `decay**2` times smaller at each halving.
    """
    points = draws.uniform(0, 0, (1, 1))
    strength = 1.0
    while points.shape[1] < side:
        count, size = points.shape[:2]
        noise = strength * draws.uniform(-1, 1, (3, size, size))
        below, right = np.roll(points, -1, 1), np.roll(points, -1, 2)
        middle = (points + below + right + np.roll(below, -1, 2)) / 4 + noise[:, 0]
        across = (points + right + middle + np.roll(middle, 1, 1)) / 4 + noise[:, 1]
        down = (points + below + middle + np.roll(middle, 1, 2)) / 4 + noise[:, 2]
        finer = np.empty((count, 2 * size, 2 * size), np.float32)
        finer[:, ::2, ::2], finer[:, 1::2, 1::2] = points, middle
        finer[:, ::2, 1::2], finer[:, 1::2, ::2] = across, down
        points, strength = finer, strength / decay**2
    points -= points.min(axis=(1, 2), keepdims=True)
    return points / points.max(axis=(1, 2), keepdims=True)


def brightness(x, level, draws):
    """More light: `level` is added to the V of HSV, hue and saturation stay."""
    value = x.max(axis=-1, keepdims=True)
    brighter = np.minimum(value + np.float32(level), 1)
    # Colours of one hue and saturation are multiples of one another; black has neither.
    return np.where(value > 0, x * brighter / np.maximum(value, 1e-12), brighter)


WEATHER = {
    "snow": Corruption(
        "weather",
        snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    "frost": Corruption(
        "weather",
        frost,
        ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    ),
    "fog": Corruption(
        "weather",
        fog,
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    "brightness": Corruption(
        "weather", brightness, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)
    ),
}
