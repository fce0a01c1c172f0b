"""The original code's pictures, from the same random numbers: scripts/record_corruptions.py."""

import pathlib

import numpy as np
import pytest

from keras_robust.data.corruptions._corrupt import TABLE

pytestmark = pytest.mark.once

RECORDED = np.load(pathlib.Path(__file__).with_name("original.npz"))
RUNS = sorted(key for key in RECORDED.files if key[-1].isdigit() and "draw" not in key)
# The original rounds its flakes down to 8 bits, twice, and blurs and shuffles 8-bit pictures.
STEPS = {"snow": 2.5, "glass_blur": 1.1, "motion_blur": 1.1, "pixelate": 1.1}


class Recorded:
    """Draws from the file, in order, for one image."""

    def __init__(self, name):
        keys = sorted(key for key in RECORDED.files if key.startswith(f"{name}/draw"))
        self.left = [RECORDED[key] for key in keys]

    def normal(self, shape):
        return self._next(shape)

    def integers(self, low, high, shape):
        return self._next(shape).astype(np.int32)

    def uniform(self, low, high, shape=()):
        draw = self._next(shape)
        # Angles are recorded as they are, all else in [-1, 1].
        return draw if shape == () else draw * np.float32(high)

    def _next(self, shape):
        if shape == (1, 1):  # the corner that clouds grow from, 0 there and here
            return np.zeros((1, 1, 1), np.float32)
        draw = self.left.pop(0)
        assert draw.shape == tuple(shape)
        return draw[None]


@pytest.mark.parametrize("run", RUNS)
def test_the_same_draws_give_the_originals_picture(run):
    name, severity = run.split("/")
    x = RECORDED["picture"][None].astype(np.float32) / 255
    corruption, draws = TABLE[name], Recorded(name)
    ours = corruption.apply(x, corruption.small[int(severity) - 1], draws).clip(0, 1)
    theirs = RECORDED[run].astype(np.float64) / 65535
    worst = np.abs(ours[0] - theirs).max() * 255
    assert worst < STEPS.get(name, 0.02), worst
    assert np.abs(theirs - x[0]).max() > 0.02


def test_most_of_the_fifteen_are_recorded():
    assert len(RUNS) == 22 and {run.split("/")[1] for run in RUNS} == {"2", "5"}
