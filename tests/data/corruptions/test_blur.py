import numpy as np
import pytest

from keras_robust.data import corrupt
from keras_robust.data.corruptions._blur import BLUR, defocus_blur, disk, glass_blur, zoom_blur
from keras_robust.data.corruptions._draws import Draws
from keras_robust.data.corruptions._filters import zoom


def noise(count=2, side=24, channels=3, seed=0):
    return np.random.default_rng(seed).random((count, side, side, channels), np.float32)


@pytest.mark.parametrize("name", BLUR)
@pytest.mark.parametrize("severity", [1, 5])
def test_an_even_picture_stays_and_detail_goes(name, severity):
    even = np.full((1, 32, 32, 3), 0.4, np.float32)
    np.testing.assert_allclose(corrupt(even, name, severity), even, atol=1e-6)
    x = noise(1, 32)
    if name != "glass_blur":  # which moves pixels
        before, after = (np.abs(np.diff(a, axis=2)).mean() for a in (x, corrupt(x, name, severity)))
        assert after < before
    assert corrupt(x, name, severity).mean() == pytest.approx(x.mean(), abs=0.02)


@pytest.mark.parametrize("level", BLUR["defocus_blur"].small + BLUR["defocus_blur"].large)
def test_disk_is_round_and_of_its_size(level):
    kernel = disk(*level)
    whole = 1.013 if level[0] == 8 else 1.011 if level[0] == 10 else 1
    assert kernel.sum() == pytest.approx(whole, abs=1e-3) and kernel.min() >= 0
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-8)
    np.testing.assert_allclose(kernel, kernel[::-1], atol=1e-8)
    # Mean squared distances add up: of the pixels inside the radius, and of the small Gaussian.
    along = np.arange(-20, 21)
    squares = along[:, None] ** 2 + along**2
    half = 1 if level[0] <= 8 else 2
    bell = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * level[1] ** 2))
    edge = (np.arange(-half, half + 1) ** 2 * bell).sum() / bell.sum()
    expected = squares[squares <= level[0] ** 2].mean() + 2 * edge
    reach = len(kernel) // 2
    squares = squares[20 - reach : 21 + reach, 20 - reach : 21 + reach]
    assert (kernel * squares).sum() == pytest.approx(expected, rel=1e-3 + 2 * (whole - 1))


def test_defocus_of_a_point_is_the_disk():
    x = np.zeros((1, 41, 41, 1), np.float32)
    x[0, 20, 20] = 1
    out = defocus_blur(x, (6, 0.5), None)[0, :, :, 0]
    kernel = disk(6, 0.5)
    reach = len(kernel) // 2
    np.testing.assert_allclose(
        out[20 - reach : 21 + reach, 20 - reach : 21 + reach], kernel, atol=1e-7
    )
    np.testing.assert_array_equal(defocus_blur(x, (0.3, 0.01), None), x)  # a single pixel


@pytest.mark.parametrize(("reach", "times"), [(1, 1), (3, 1), (2, 3)])
def test_glass_moves_pixels_no_farther_than_it_says(reach, times):
    x = np.arange(20 * 20, dtype=np.float32).reshape(1, 20, 20, 1)
    out = glass_blur(x, (0, reach, times), Draws(0, "glass_blur", 0, 1))
    rows, columns = np.divmod(np.arange(400), 20)
    from_rows, from_columns = np.divmod(out.ravel().astype(int), 20)
    farthest = max(np.abs(from_rows - rows).max(), np.abs(from_columns - columns).max())
    # A value that was moved to a later place already may be taken on from there.
    assert 1 <= farthest <= 20 and np.mean(out != x) > 0.4
    if (reach, times) == (1, 1):
        assert farthest == 1
    np.testing.assert_array_equal(glass_blur(x, (0, reach, 0), Draws(0, "glass_blur", 0, 1)), x)


def test_glass_is_the_sequential_rule_pixel_by_pixel():
    x, (reach, times) = noise(2, 12), (2, 2)
    out = glass_blur(x, (0, reach, times), Draws(3, "glass_blur", 0, 2))
    draws = Draws(3, "glass_blur", 0, 2)
    expected = x.copy()
    for _ in range(times):
        stray = draws.integers(-reach, reach, (12, 12, 2))
        for image, moves in zip(expected, stray):
            for row in range(12 - reach, reach, -1):
                for column in range(12 - reach, reach, -1):
                    down, right = moves[row, column]
                    image[row, column] = image[row + down, column + right]
    np.testing.assert_array_equal(out, expected)


def test_zoom_blur_is_the_mean_over_its_enlargements():
    x = noise()
    np.testing.assert_allclose(zoom_blur(x, (1.005, 0.01), None), x, atol=1e-6)  # only factor 1
    halves = zoom_blur(x, (1.26, 0.25), None)  # factors 1 and 1.25, and the picture itself
    np.testing.assert_allclose(halves, (2 * x + zoom(x, 1.25)) / 3, atol=1e-6)
