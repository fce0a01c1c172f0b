import numpy as np
import pytest
from scipy import ndimage

from keras_robust.data.corruptions._filters import gaussian, motion, zoom


def test_gaussian_is_the_kernel_on_a_point():
    x = np.zeros((1, 41, 41, 1), np.float32)
    x[0, 20, 20] = 1
    spread = gaussian(x, 2.0)[0, :, :, 0]
    along = np.exp(-((np.arange(41) - 20.0) ** 2) / 8)
    np.testing.assert_allclose(spread, np.outer(along, along) / along.sum() ** 2, atol=1e-5)


@pytest.mark.parametrize(("degrees", "down", "right"), [(0, 0, 1), (90, 1, 0), (-90, -1, 0)])
def test_motion_averages_half_a_gaussian_along_its_direction(degrees, down, right):
    x = np.zeros((1, 31, 31, 1), np.float32)
    x[0, 15, 15] = 1
    out = motion(x, 3, 2.0, np.array([degrees]))[0, :, :, 0]
    weights = np.exp(-(np.arange(7) ** 2) / 8)
    expected = np.zeros((31, 31))
    for step, weight in enumerate(weights / weights.sum()):
        expected[15 - step * down, 15 - step * right] = weight
    np.testing.assert_allclose(out, expected, atol=1e-6)


def test_motion_has_a_direction_for_each_image():
    x = np.random.default_rng(0).random((2, 12, 10, 3), np.float32)
    together = motion(x, 4, 2.0, np.array([30.0, -60.0]))
    alone = [motion(x[i : i + 1], 4, 2.0, np.array([d]))[0] for i, d in enumerate((30.0, -60.0))]
    np.testing.assert_array_equal(together, alone)


def test_zoom_one_is_identity_and_an_even_picture_stays():
    x = np.random.default_rng(0).random((2, 12, 9, 3), np.float32)
    np.testing.assert_array_equal(zoom(x, 1), x)
    np.testing.assert_allclose(zoom(np.full_like(x, 0.3), 1.7), 0.3, atol=1e-6)


@pytest.mark.parametrize("factor", [1.01, 1.11, 1.75, 2.5, 4.5])
@pytest.mark.parametrize("shape", [(28, 28), (17, 24)])
def test_zoom_is_scipys_on_the_middle(factor, shape):
    x = np.random.default_rng(0).random((1, *shape, 1), np.float32)

    def middle(a, rows, columns):
        top, left = (a.shape[0] - rows) // 2, (a.shape[1] - columns) // 2
        return a[top : top + rows, left : left + columns]

    part = middle(x[0, :, :, 0], *(int(np.ceil(side / factor)) for side in shape))
    expected = middle(ndimage.zoom(part.astype(np.float64), factor, order=1), *shape)
    np.testing.assert_allclose(zoom(x, factor)[0, :, :, 0], expected, atol=1e-5)
