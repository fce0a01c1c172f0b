"""Random numbers for a batch of images, a generator for each image."""

import zlib

import numpy as np


class Draws:
    """Draws for `count` images; image `i` gets the same ones in whatever batch it comes.

    The severity is no part of the seed: the five severities share their draws, so that they
    differ by their strength alone.

    Args:
        seed: int >= 0.
        name: of the corruption.
        first: number of the first image.
        count: images.
    """

    def __init__(self, seed: int, name: str, first: int, count: int):
        tag = zlib.crc32(name.encode())
        self._generators = [
            np.random.default_rng([seed, tag, index]) for index in range(first, first + count)
        ]

    def normal(self, shape) -> np.ndarray:
        """Standard normal, float32, `(count, *shape)`."""
        return self._stack(lambda g: g.standard_normal(shape, np.float32))

    def uniform(self, low: float, high: float, shape=()) -> np.ndarray:
        """Uniform in `[low, high)`, float32, `(count, *shape)`."""
        return self._stack(lambda g: low + (high - low) * g.random(shape, np.float32))

    def integers(self, low: int, high: int, shape) -> np.ndarray:
        """Whole numbers in `[low, high)`, `(count, *shape)`."""
        return self._stack(lambda g: g.integers(low, high, shape, np.int32))

    def poisson(self, means: np.ndarray) -> np.ndarray:
        """Poisson counts with the given means, `(count, ...)`, float32."""
        pairs = zip(self._generators, means)
        return np.stack([g.poisson(mean).astype(np.float32) for g, mean in pairs])

    def _stack(self, draw) -> np.ndarray:
        return np.stack([draw(g) for g in self._generators])
