import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import keras_robust as kr
from keras_robust.data import CORRUPTIONS, corrupt
from keras_robust.data.corruptions import _corrupt, family_of

# What the published strengths give: these rise only in part, in the original too.
UNEVEN = {"glass_blur", "snow", "frost", "elastic_transform"}
CERTAIN = {
    "defocus_blur",
    "zoom_blur",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg_compression",
}


def pictures(count=6, side=32, channels=3, seed=0):
    """Smooth shapes with edges and texture, such as photographs have."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] / side
    out = np.empty((count, side, side, channels), np.float32)
    for image in out:
        for channel in range(channels):
            fx, fy, phase = rng.uniform(1, 6, 3)
            wave = np.sin(fx * rows * 6 + phase) * np.cos(fy * columns * 6)
            image[..., channel] = 0.4 + 0.25 * wave + 0.2 * (rows + rng.uniform() < columns + 0.4)
    return (out + 0.02 * rng.normal(size=out.shape)).clip(0, 1).astype(np.float32)


def distance(x, name, severity, **settings):
    changed = corrupt(x, name, severity, **settings)
    return float(np.sqrt(np.mean((changed - x) ** 2)))


def test_names_and_families_are_those_of_the_paper():
    assert kr.data.CORRUPTIONS == CORRUPTIONS and len(set(CORRUPTIONS)) == 15
    families = [family_of(name) for name in CORRUPTIONS]
    counts = {family: families.count(family) for family in families}
    assert counts == {"noise": 3, "blur": 4, "weather": 4, "digital": 4}
    assert family_of("sandstorm") == "other"
    assert all(len(c.small) == len(c.large) == 5 for c in _corrupt.TABLE.values())


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize(("side", "channels"), [(28, 1), (32, 3)])
def test_shape_range_repetition_and_parts(name, side, channels):
    x = pictures(5, side, channels)
    before = x.copy()
    np.random.seed(3)
    state = np.random.get_state()[1].copy()
    out = corrupt(x, name, 3, seed=1)
    assert out.shape == x.shape and out.dtype == np.float32
    assert out.min() >= 0 and out.max() <= 1 and np.isfinite(out).all()
    assert np.abs(out - x).max() > 0.01
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    np.testing.assert_array_equal(corrupt(x, name, 3, seed=1), out)
    parts = [corrupt(x[:2], name, 3, seed=1), corrupt(x[2:], name, 3, seed=1, first=2)]
    np.testing.assert_array_equal(np.concatenate(parts), out)
    assert np.array_equal(corrupt(x, name, 3, seed=2), out) == (name in CERTAIN)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_images_of_a_batch_get_their_own_draws(name):
    x = np.repeat(pictures(1), 2, axis=0)
    first, second = corrupt(x, name, 5)
    assert np.array_equal(first, second) == (name in CERTAIN)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_severity_grows(name, channels):
    x = pictures(16, channels=channels)
    distances = [distance(x, name, severity) for severity in range(1, 6)]
    assert min(distances) > 0.004
    if name == "elastic_transform":  # published with ever shorter moves, and ever rougher ones
        assert max(distances) < 3 * min(distances)
    else:
        assert distances[4] > 1.1 * distances[0]
    if name not in UNEVEN:
        assert np.all(np.diff(distances) > -0.03 * max(distances)), distances


def test_large_images_use_the_other_table():
    small, large = pictures(2, 84), pictures(2, 85)
    for x, own, other in ((small, "small", "large"), (large, "large", "small")):
        free = corrupt(x, "contrast", 1)
        np.testing.assert_array_equal(corrupt(x, "contrast", 1, table=own), free)
        assert np.abs(corrupt(x, "contrast", 1, table=other) - free).max() > 0.05


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_large_table_runs_at_its_size(name):
    x = pictures(1, 224)
    out = corrupt(x, name, 1)
    assert out.shape == x.shape and 0.01 < np.sqrt(np.mean((out - x) ** 2)) < 0.5


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_other_bounds_are_the_same_pictures(name):
    x = pictures(3)
    shifted = corrupt(4 * x - 2, name, 4, bounds=(-2, 2))
    assert shifted.min() >= -2 and shifted.max() <= 2
    # JPEG rounds to 8 bits, Poisson counts to whole photons: a value on the edge may fall over.
    close = np.abs((shifted + 2) / 4 - corrupt(x, name, 4)) < 1e-5
    assert close.mean() > (0.9 if name in ("jpeg_compression", "shot_noise") else 0.999)


def test_a_large_set_is_worked_on_in_portions(monkeypatch):
    x = pictures(7)
    whole = {name: corrupt(x, name) for name in ("fog", "glass_blur", "elastic_transform")}
    monkeypatch.setattr(_corrupt, "_PORTION", 2 * x[0].size)
    for name, out in whole.items():
        np.testing.assert_array_equal(corrupt(x, name), out)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(CORRUPTIONS),
    severity=st.integers(1, 5),
    seed=st.integers(0, 2**63),
    table=st.sampled_from(["small", "large"]),
    x=hnp.arrays(
        np.float32,
        st.tuples(
            st.integers(1, 2), st.integers(8, 20), st.integers(8, 20), st.sampled_from([1, 3])
        ),
        elements=st.floats(0, 1, width=32),
    ),
)
def test_never_outside_never_nan(name, severity, seed, table, x):
    out = corrupt(x, name, severity, seed, table=table)
    assert out.shape == x.shape and out.dtype == np.float32
    assert np.isfinite(out).all() and out.min() >= 0 and out.max() <= 1
    np.testing.assert_array_equal(corrupt(x, name, severity, seed, table=table), out)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"name": "rain"}, ValueError, "`name` must be one of kr.data.CORRUPTIONS .*got 'rain'"),
        ({"severity": 0}, ValueError, r"`severity` must be an int in \[1, 5\], got 0"),
        ({"severity": 2.0}, ValueError, r"`severity` must be an int in \[1, 5\], got 2.0"),
        ({"seed": -1}, ValueError, "`seed` must be an int >= 0, got -1"),
        ({"first": -1}, ValueError, "`first` must be an int >= 0, got -1"),
        ({"bounds": (1, 0)}, ValueError, r"`bounds` must be finite with low < high, got \(1, 0\)"),
        ({"bounds": 1}, ValueError, r"`bounds` must be two numbers \(low, high\), got 1"),
        ({"bounds": (0, 0.5)}, ValueError, r"outside bounds=\(0.0, 0.5\)"),
        ({"table": "tiny"}, ValueError, '`table` must be "small", "large" or None'),
        ({"x": np.ones((2, 8, 8), "float32")}, ValueError, r"grey ones as x\[..., None\]"),
        ({"x": np.ones((2, 8, 8, 4), "float32")}, ValueError, r"got shape \(2, 8, 8, 4\)"),
        ({"x": np.ones((2, 7, 8, 1), "float32")}, ValueError, "at least 8 x 8 pixels"),
        ({"x": np.ones((2, 8, 8, 1), "uint8")}, TypeError, "must be floating point"),
        ({"x": np.full((2, 8, 8, 1), np.nan)}, ValueError, "NaN or infinite"),
    ],
)
def test_wrong_input_says_what_to_do(settings, error, message):
    with pytest.raises(error, match=message):
        corrupt(**{"x": pictures(1), "name": "fog", **settings})
