import colorsys

import numpy as np
import pytest

from keras_robust.data import corrupt
from keras_robust.data.corruptions._draws import Draws
from keras_robust.data.corruptions._frost import frost_plates
from keras_robust.data.corruptions._weather import brightness, fog, frost, plasma, snow

pytestmark = pytest.mark.once


def noise(count=2, side=16, channels=3, seed=0):
    return np.random.default_rng(seed).random((count, side, side, channels), np.float32)


@pytest.mark.parametrize("level", [0.05, 0.3])
def test_brightness_adds_to_the_value_of_hsv(level):
    x = noise(1, 8)
    x[0, 0, :3] = [[0, 0, 0], [1, 1, 1], [0, 0, 0.9]]
    expected = np.empty_like(x)
    for place in np.ndindex(x.shape[:3]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(float(v) for v in x[place]))
        expected[place] = colorsys.hsv_to_rgb(hue, saturation, min(value + level, 1))
    np.testing.assert_allclose(brightness(x, level, None), expected, atol=1e-6)


@pytest.mark.parametrize("severity", range(1, 6))
def test_brightness_shifts_the_mean_of_grey_pictures(severity):
    shift = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    x = 0.6 * noise(channels=1)
    np.testing.assert_allclose(corrupt(x, "brightness", severity), x + shift, atol=1e-6)


def test_snow_without_flakes_whitens_towards_the_grey():
    x = noise()
    out = snow(x, (0, 0, 1, 0.5, 4, 2, 0.9), Draws(0, "snow", 0, 2))
    grey = x @ np.array([0.299, 0.587, 0.114])
    expected = 0.9 * x + 0.1 * np.maximum(x, (1.5 * grey + 0.5)[..., None])
    np.testing.assert_allclose(out, expected, atol=1e-6)
    np.testing.assert_array_equal(snow(x, (0, 0, 1, 0.5, 4, 2, 1), Draws(0, "snow", 0, 2)), x)


@pytest.mark.parametrize("channels", [1, 3])
def test_snow_falls_on_everything_alike_and_only_brightens(channels):
    black = np.zeros((4, 32, 32, channels), np.float32)
    out = corrupt(black, "snow", 3)
    np.testing.assert_array_equal(out[..., 0], out[..., -1])
    flakes = out - out.min()
    assert out.min() >= 0.04 and (flakes > 0.1).mean() > 0.02  # 0.1 * 0.5 from the whitening
    x = noise(channels=channels)
    assert np.all(corrupt(x, "snow", 1) >= x - 1e-6)


@pytest.mark.parametrize("decay", [1.5, 3])
def test_plasma_is_smooth_for_a_fast_decay_and_fills_the_range(decay):
    layer = plasma(28, decay, Draws(0, "fog", 0, 4))
    assert layer.shape == (4, 32, 32)
    np.testing.assert_array_equal(layer.min(axis=(1, 2)), 0)
    np.testing.assert_array_equal(layer.max(axis=(1, 2)), 1)
    rough = np.abs(np.diff(layer, axis=1)).mean()
    assert (rough < 0.04) == (decay == 3)
    # The step over the border is as small as the others: the pattern is periodic.
    assert np.abs(layer[:, 0] - layer[:, -1]).mean() < 3 * rough


def test_fog_is_the_formula_and_none_is_identity():
    x = noise()
    level = (0.75, 2.5)
    layer = plasma(16, 2.5, Draws(0, "fog", 0, 2))[..., None]
    top = x.max(axis=(1, 2, 3), keepdims=True)
    expected = (x + 0.75 * layer) * top / (top + 0.75)
    np.testing.assert_allclose(fog(x, level, Draws(0, "fog", 0, 2)), expected, atol=1e-6)
    np.testing.assert_allclose(fog(x, (0, 3), Draws(0, "fog", 0, 2)), x, atol=1e-6)
    black = np.zeros((1, 16, 16, 1), np.float32)
    assert corrupt(black, "fog", 5).max() == 0  # the brightest pixel stays as bright as it was


def test_frost_is_a_weighted_sum_with_bluish_ice():
    x = noise(6, 32)
    ice = frost_plates(x.shape[1:], Draws(0, "frost", 0, 6))
    out = frost(x, (0.85, 0.4), Draws(0, "frost", 0, 6))
    np.testing.assert_allclose(out, 0.85 * x + 0.4 * ice, atol=1e-6)
    np.testing.assert_array_equal(frost(x, (1, 0), Draws(0, "frost", 0, 6)), x)
    assert 0 <= ice.min() and ice.max() <= 1
    red, green, blue = ice.mean(axis=(0, 1, 2))
    assert red < green < blue


def test_ice_has_the_brightness_and_contrast_of_the_photographs():
    ice = frost_plates((64, 64, 1), Draws(0, "frost", 0, 40))
    means, spreads = ice.mean(axis=(1, 2, 3)), ice.std(axis=(1, 2, 3))
    assert 0.43 < means.min() and means.max() < 0.82 and means.std() > 0.05
    assert 0.05 < spreads.min() and spreads.max() < 0.08
    # Crystals, not snow on a screen: neighbours are alike.
    near = np.abs(np.diff(ice, axis=1)).mean() / np.abs(ice - np.roll(ice, 32, 1)).mean()
    assert near < 0.75  # 1 when they have nothing to do with one another
    assert np.abs(ice[0] - ice[1]).mean() > 0.02
