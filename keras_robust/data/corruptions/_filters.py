"""Filters that more than one corruption needs, for batches `(n, h, w, c)`."""

import numpy as np


def gaussian(x: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur of `sigma` pixels; the border pixels go on outside."""
    from scipy import ndimage

    return ndimage.gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest")


def motion(x: np.ndarray, radius: int, sigma: float, degrees: np.ndarray) -> np.ndarray:
    """A camera that moves one way, as ImageMagick's motion blur.

    Pixels are averaged along a straight line that starts at each, `2 radius + 1` of them,
    with the weights of half a Gaussian; the border pixels go on outside.

    Args:
        degrees: `(n,)`, the direction for each image; 0 is to the right, 90 down.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights = (weights / weights.sum()).astype(np.float32)
    angles = np.radians(degrees.astype(np.float64))[:, None]
    down = np.ceil(steps * np.sin(angles) - 0.5).astype(int)
    right = np.ceil(steps * np.cos(angles) - 0.5).astype(int)
    images, (height, width) = np.arange(len(x))[:, None, None], x.shape[1:3]
    out = np.zeros_like(x)
    for step, weight in enumerate(weights):
        rows = np.clip(np.arange(height) + down[:, step, None], 0, height - 1)
        columns = np.clip(np.arange(width) + right[:, step, None], 0, width - 1)
        out += weight * x[images, rows[:, :, None], columns[:, None, :]]
    return out


def zoom(x: np.ndarray, factor: float) -> np.ndarray:
    """The middle of the images, `factor` >= 1 times enlarged, linear, at the same size."""
    for axis in (1, 2):
        before, share = _sources(x.shape[axis], factor)
        share = share.reshape((-1,) + (1,) * (3 - axis))
        near = np.take(x, before, axis)
        x = near + share * (np.take(x, np.minimum(before + 1, x.shape[axis] - 1), axis) - near)
    return x


def _sources(side: int, factor: float):
    """Where the pixels of an enlarged side come from: a pixel, and the share of the next one.

    A part of `ceil(side / factor)` pixels is enlarged so that its first and last pixel stay its
    ends; what is then more than `side` is cut off, half on each end.
    """
    kept = int(np.ceil(side / factor))
    enlarged = round(kept * factor)
    places = np.arange(side) + (enlarged - side) // 2
    places = (side - kept) // 2 + places * ((kept - 1) / max(enlarged - 1, 1))
    before = places.astype(int)
    return before, (places - before).astype(np.float32)
