"""Perturbations brought to a given size, clip included."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from keras_robust.analysis._perturbations import at_rms, gaussian

pytestmark = pytest.mark.once


def root_mean_square(delta):
    return np.sqrt(np.mean(np.square(np.float64(delta)).reshape(len(delta), -1), axis=1))


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(
    seed=st.integers(0, 2**32),
    rms=st.floats(0.001, 0.3),
    bounds=st.sampled_from([(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)]),
    scale=st.sampled_from([1e-6, 1.0, 1e5]),
)
def test_the_size_is_met_after_the_clip(seed, rms, bounds, scale):
    generator = np.random.default_rng(seed)
    low, high = bounds
    x = generator.uniform(low, high, size=(3, 60)).astype("float32")
    x = np.where(generator.random(x.shape) < 0.3, np.float32(low), x)
    delta = generator.normal(size=x.shape) * scale
    wanted = rms * (high - low)
    moved = at_rms(x, delta, wanted, bounds)
    assert moved.min() >= low and moved.max() <= high
    np.testing.assert_allclose(root_mean_square(moved - np.float64(x)), wanted, rtol=1e-4)
    way = moved - np.float64(x)
    assert np.all(way * delta >= -1e-6 * abs(delta).max() * (high - low))


def test_without_a_clip_the_direction_is_kept():
    x, delta = np.full((1, 4), 0.5), np.array([[1.0, -2.0, 3.0, 0.0]])
    moved = at_rms(x, delta, 0.1)
    np.testing.assert_allclose(moved - x, delta * 0.1 / np.sqrt(14 / 4), atol=1e-7)


def test_a_size_out_of_reach_gives_the_farthest_and_a_zero_row_stays():
    x = np.array([[0.2, 0.6], [0.5, 0.5]])
    moved = at_rms(x, [[-1.0, 0.001], [0.0, 0.0]], 5.0)
    np.testing.assert_allclose(moved, [[0.0, 1.0], [0.5, 0.5]], atol=1e-6)


def test_each_row_has_its_own_size():
    x = np.full((2, 100), 0.5, "float32")
    noisy = gaussian(x, np.array([0.01, 0.1]), seed=3)
    np.testing.assert_allclose(root_mean_square(noisy - np.float64(x)), [0.01, 0.1], rtol=1e-5)


def test_noise_repeats_with_its_seed_and_is_gaussian():
    x = np.full((1, 20_000), 0.5, "float32")
    noise = (gaussian(x, 0.1, seed=1) - x) / 0.1
    np.testing.assert_array_equal(gaussian(x, 0.1, seed=1), gaussian(x, 0.1, seed=1))
    assert np.any(gaussian(x, 0.1, seed=1) != gaussian(x, 0.1, seed=2))
    assert np.mean(noise) == pytest.approx(0, abs=0.03)
    assert np.mean(noise**4) == pytest.approx(3, abs=0.2)
