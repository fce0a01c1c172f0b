"""Blur: each pixel becomes a mixture of those around it."""

import numpy as np

from keras_robust.data.corruptions._filters import gaussian, motion, zoom
from keras_robust.data.corruptions._level import Corruption


def defocus_blur(x, level, draws):
    """The mean over a disk: out of focus. Level: its radius, the blur of its edge, in pixels."""
    from scipy import ndimage

    return ndimage.correlate(x, disk(*level)[None, :, :, None], mode="mirror")


def disk(radius: float, edge: float) -> np.ndarray:
    """A disk whose edge is smoothed by a small Gaussian of sigma `edge`.

    It sums to one; at radii 8 and 10 to 1.01, since the original mirrors the disk where its
    array ends, and so it was published.
    """
    from scipy import ndimage

    side, half = (8, 1) if radius <= 8 else (radius, 2)
    along = np.arange(-side, side + 1)
    flat = (along[:, None] ** 2 + along**2 <= radius**2).astype(np.float32)
    bell = np.exp(-(np.arange(-half, half + 1.0) ** 2) / (2 * edge**2))
    bell /= bell.sum()
    kernel = ndimage.correlate(flat / flat.sum(), np.outer(bell, bell), mode="mirror")
    reach = int(np.abs(along[kernel.any(axis=0)]).max())
    return kernel[side - reach : side + reach + 1, side - reach : side + reach + 1]


def glass_blur(x, level, draws):
    """Frosted glass. Level: sigma of the blurs, how far pixels stray, how often.

    From the last pixel to the first each takes the value of a random near one, which may have
    taken another's before. The original means to swap the two, but its assignment copies when
    there are colours, and so it was published.
    """
    sigma, reach, times = level
    count, height, width = x.shape[:3]
    # Pixels are moved by their numbers, `(pixel, image)`: one row assignment for all images.
    source = np.tile(np.arange(height * width)[:, None], (1, count))
    images = np.arange(count)
    for _ in range(times):
        stray = draws.integers(-reach, reach, (height, width, 2))
        partner = (stray[..., 0] * width + stray[..., 1]).reshape(count, -1).T
        for row in range(height - reach, reach, -1):
            for pixel in range((row + 1) * width - reach, row * width + reach, -1):
                source[pixel] = source[pixel + partner[pixel], images]
    blurred = gaussian(x, sigma).reshape(count, height * width, -1)
    moved = np.take_along_axis(blurred, source.T[:, :, None], axis=1)
    return gaussian(moved.reshape(x.shape), sigma)


def motion_blur(x, level, draws):
    """A moving camera, up to 45 degrees from level. Level: radius and sigma, in pixels."""
    return motion(x, *level, draws.uniform(-45, 45))


def zoom_blur(x, level, draws):
    """A camera that moves towards the scene. Level: the largest enlargement and the step."""
    largest, step = level
    factors = np.arange(1, largest, step)
    return (x + sum(zoom(x, factor) for factor in factors)) / np.float32(len(factors) + 1)


BLUR = {
    "defocus_blur": Corruption(
        "blur",
        defocus_blur,
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "glass_blur": Corruption(
        "blur",
        glass_blur,
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    "motion_blur": Corruption(
        "blur",
        motion_blur,
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    "zoom_blur": Corruption(
        "blur",
        zoom_blur,
        ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    ),
}
