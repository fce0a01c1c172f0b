import io

import numpy as np
import pytest
from PIL import Image
from scipy import fft

from keras_robust.data import corrupt
from keras_robust.data.corruptions._digital import (
    DIGITAL,
    _affine,
    contrast,
    elastic_transform,
    jpeg_compression,
    pixelate,
)
from keras_robust.data.corruptions._draws import Draws

pytestmark = pytest.mark.once


def noise(count=2, side=16, channels=3, seed=0):
    return np.random.default_rng(seed).random((count, side, side, channels), np.float32)


@pytest.mark.parametrize("severity", range(1, 6))
def test_contrast_keeps_the_mean_and_scales_the_spread(severity):
    x, level = noise(), DIGITAL["contrast"].small[severity - 1]
    out = corrupt(x, "contrast", severity)
    np.testing.assert_allclose(out.mean(axis=(1, 2)), x.mean(axis=(1, 2)), atol=1e-6)
    np.testing.assert_allclose(out.std(axis=(1, 2)), level * x.std(axis=(1, 2)), rtol=1e-4)
    np.testing.assert_allclose(contrast(x, 1, None), x, atol=1e-6)


def test_affine_takes_the_corners_where_they_move():
    moves = np.array([[1.0, -2.0], [0.5, 3.0], [-1.5, 0.25]])
    matrix, offset = _affine((20, 30), moves)
    corners = np.array([10, 15]) + 6 * np.array([[1, 1], [-1, 1], [-1, -1]])
    for corner, move in zip(corners, moves):
        np.testing.assert_allclose(matrix @ (corner + move) + offset, corner, atol=1e-9)


class Fixed:
    """Draws that are all one number; the affine map's and the shifts' differ."""

    def __init__(self, moves, shifts):
        self.moves, self.shifts = moves, shifts

    def uniform(self, low, high, shape):
        value = self.moves if shape == (3, 2) else self.shifts
        return np.full((2, *shape), value, np.float32)


def test_elastic_is_identity_without_strength_and_a_shift_for_even_draws():
    x = noise()
    still = elastic_transform(x, (0, 0.1, 0), Draws(0, "e", 0, 2))
    np.testing.assert_allclose(still, x, atol=1e-6)
    # All three corners two pixels down and right: the affine map is that shift.
    moved = elastic_transform(x, (0, 0, 0.3), Fixed(2, 0))
    np.testing.assert_allclose(moved[:, 2:, 2:], x[:, :-2, :-2], atol=1e-5)
    # Even local shifts of 0.125 * 16 pixels take the values from there.
    taken = elastic_transform(x, (0.125, 0.1, 0), Fixed(0, 1))
    np.testing.assert_allclose(taken[:, :-2, :-2], x[:, 2:, 2:], atol=1e-5)


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize(("side", "channels"), [(28, 1), (32, 3)])
def test_pixelate_is_pillows_box_filter(severity, side, channels):
    x = noise(1, side, channels)
    fewer = int(side * DIGITAL["pixelate"].small[severity - 1])
    expected = [
        np.asarray(
            Image.fromarray(channel)
            .resize((fewer, fewer), Image.BOX)
            .resize((side, side), Image.BOX)
        )
        for channel in np.moveaxis(x[0], -1, 0)
    ]
    out = corrupt(x, "pixelate", severity)
    np.testing.assert_allclose(np.moveaxis(out[0], -1, 0), expected, atol=1e-5)
    np.testing.assert_allclose(pixelate(x, 1, None), x, atol=1e-6)


def test_pixelate_leaves_as_many_values_as_pixels():
    out = corrupt(noise(1, 100, 1), "pixelate", 5)  # the large table: a quarter of the side
    assert len(np.unique(out.round(5))) <= 25 * 25


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_pillows_and_loses_information(channels):
    x = noise(2, 32, channels)
    out = corrupt(x, "jpeg_compression", 4)
    picture = np.round(255 * x[1]).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture if channels == 3 else picture[..., 0]).save(file, "JPEG", quality=50)
    expected = np.asarray(Image.open(file), np.float32).reshape(picture.shape) / 255
    np.testing.assert_allclose(out[1], expected, atol=1e-6)
    assert np.sqrt(np.mean((out - x) ** 2)) > 0.05


def test_jpeg_drops_most_frequencies():
    x = 0.4 + 0.2 * noise(1, 32, 1)

    def frequencies(image):
        blocks = (255 * image[0, :, :, 0]).reshape(4, 8, 4, 8).swapaxes(1, 2)
        return np.abs(fft.dctn(blocks, axes=(2, 3), norm="ortho"))

    before, after = frequencies(x), frequencies(jpeg_compression(x, 10, None))
    assert np.mean(before < 2) < 0.15 and np.mean(after < 2) > 0.7


def test_jpeg_of_full_quality_is_nearly_the_picture():
    rows, columns = np.mgrid[:32, :32] / 64
    smooth = np.repeat((rows + columns)[None, :, :, None], 3, axis=-1).astype(np.float32)
    np.testing.assert_allclose(jpeg_compression(smooth, 100, None), smooth, atol=0.02)
