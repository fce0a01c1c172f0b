import numpy as np
import pytest

from keras_robust.data import corrupt
from keras_robust.data.corruptions._draws import Draws
from keras_robust.data.corruptions._noise import NOISE, gaussian_noise, impulse_noise

pytestmark = pytest.mark.once


def grey(value, count=4, side=32):
    return np.full((count, side, side, 3), value, np.float32)


@pytest.mark.parametrize("severity", range(1, 6))
def test_gaussian_noise_has_the_published_deviation(severity):
    level = NOISE["gaussian_noise"].small[severity - 1]
    noise = corrupt(grey(0.5), "gaussian_noise", severity) - 0.5
    assert noise.std() == pytest.approx(level, rel=0.03)
    assert abs(noise.mean()) < 0.05 * level


@pytest.mark.parametrize("value", [0.2, 0.6])
@pytest.mark.parametrize("severity", range(1, 6))
def test_shot_noise_has_the_variance_of_photons(value, severity):
    photons = NOISE["shot_noise"].small[severity - 1]
    out = corrupt(grey(value, 8), "shot_noise", severity)
    assert out.mean() == pytest.approx(value, rel=0.02)
    assert out.var() == pytest.approx(value / photons, rel=0.06)
    np.testing.assert_allclose(out * photons, np.round(out * photons), atol=1e-3)
    assert corrupt(grey(0), "shot_noise", severity).max() == 0


@pytest.mark.parametrize("severity", range(1, 6))
def test_impulse_noise_hits_the_published_share_in_halves(severity):
    share = NOISE["impulse_noise"].small[severity - 1]
    out = corrupt(grey(0.5, 16), "impulse_noise", severity)
    assert set(np.unique(out)) == {0, 0.5, 1}
    assert np.mean(out != 0.5) == pytest.approx(share, rel=0.1)
    assert np.mean(out[out != 0.5]) == pytest.approx(0.5, abs=0.05)


def test_severities_share_their_draws():
    x = grey(0.5)
    hits = [corrupt(x, "impulse_noise", severity) != 0.5 for severity in range(1, 6)]
    assert all(np.all(more[less]) for less, more in zip(hits, hits[1:]))
    mild, strong = (corrupt(x, "gaussian_noise", severity) - 0.5 for severity in (1, 5))
    np.testing.assert_allclose(strong, mild * 0.10 / 0.04, atol=1e-5)


@pytest.mark.parametrize("apply", [gaussian_noise, impulse_noise])
def test_no_strength_is_identity(apply):
    x = grey(0.3)
    np.testing.assert_array_equal(apply(x, 0, Draws(0, "n", 0, len(x))), x)
