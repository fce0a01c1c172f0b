"""Noise of a stated size, in every kind."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_robust as kr

Noise = kr.attacks.Noise
KINDS = ("gaussian", "uniform", "salt_and_pepper", "pixel")


def never_fooled(x):
    return tf.repeat([[2.0, 0.0]], tf.shape(x)[0], axis=0)


def rms(x_adv, x):
    delta = np.asarray(x_adv, "float64") - x
    return np.sqrt(np.mean(delta**2, axis=tuple(range(1, x.ndim))))


@settings(max_examples=8, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    shape=st.sampled_from([(9,), (6, 5, 3), (8, 8, 1)]),
    size=st.sampled_from([0.0, 1e-3, 0.1, 0.4, 3.0]),
    bounds=st.sampled_from([(0.0, 1.0), (-1.0, 1.0)]),
    seed=st.integers(0, 99),
)
def test_is_of_its_size_where_the_bounds_allow(kind, shape, size, bounds, seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(*bounds, size=(4, *shape)).astype("float32")
    attack = Noise(size, kind=kind, bounds=bounds)
    x_adv = attack(never_fooled, x, [0] * 4, seed=seed).numpy()
    np.testing.assert_array_equal(x_adv, attack(never_fooled, x, [0] * 4, seed=seed))
    assert x_adv.min() >= bounds[0] and x_adv.max() <= bounds[1]
    assert np.all(rms(x_adv, x) <= size * (1 + 1e-6) + 1e-7)
    short = rms(x_adv, x) < size * (1 - 1e-5) - 2e-7  # a rounding of `x_adv`
    # Then all that moved is at a bound, and could not move farther the way it went.
    room = np.minimum(np.abs(x_adv - bounds[0]), np.abs(x_adv - bounds[1]))
    stuck = (x_adv == x) | (room < 1e-6)
    assert stuck[short].all()
    if size <= 0.1 and kind in ("gaussian", "uniform") and len(shape) == 3:
        assert not short.any()
    if size == 0:
        np.testing.assert_array_equal(x_adv, x)


def test_kinds_look_as_they_are_called():
    x = np.full((1, 40, 40, 3), 0.5, "float32")
    delta = {k: (Noise(0.05, kind=k)(never_fooled, x, [0]) - x).numpy().ravel() for k in KINDS}
    # Kurtosis: 3 of a normal distribution, 1.8 of a uniform one.
    kurtosis = {k: np.mean(d**4) / np.mean(d**2) ** 2 for k, d in delta.items()}
    assert abs(kurtosis["gaussian"] - 3) < 0.25 and abs(kurtosis["uniform"] - 1.8) < 0.1
    moved = {kind: values != 0 for kind, values in delta.items()}
    assert moved["gaussian"].all() and moved["uniform"].all()
    # 1% of the values at a distance of one half: one may be on its way.
    size = np.abs(delta["salt_and_pepper"][moved["salt_and_pepper"]])
    assert abs(len(size) - 48) <= 1 and np.sum(size != 0.5) <= 1
    pixels = moved["pixel"].reshape(-1, 3)
    assert np.all(pixels.all(1) == pixels.any(1)) and abs(pixels.mean() - 0.5) < 0.05
    sparse = Noise(0.05, kind="pixel", share=0.1)(never_fooled, x, [0]) - x
    assert abs(np.mean(sparse != 0) - 0.1) < 0.03
    for values in delta.values():
        assert abs(values.mean()) < 4 * 0.05 / np.sqrt(values.size)


def test_seeds_and_images_differ():
    x = np.full((2, 6, 6, 1), 0.5, "float32")
    one, other = (Noise(0.1)(never_fooled, x, [0, 0], seed=seed).numpy() for seed in (0, 1))
    assert np.all(one != other) and np.all(one[0] != one[1])


def test_more_repeats_fool_more(cnn, blobs):
    model, (x, _) = cnn(), blobs(64)
    y = np.argmax(model(x), axis=1)
    margins = kr.losses.margin(y, model(x)).numpy()
    x, y = x[margins > np.median(margins)], y[margins > np.median(margins)]
    worst = [kr.losses.margin(y, model(Noise(0.2, repeats=n)(model, x, y))).numpy() for n in (1, 8)]
    assert np.mean(worst[1] > 0) > np.mean(worst[0] > 0)
    assert np.mean(worst[1]) > np.mean(worst[0])


def test_misclassified_images_stay_so(cnn, blobs):
    model, (x, _) = cnn(), blobs(64)
    scores = model(x).numpy()
    # Labels that the model gives second: many images are a small step from being right.
    y = np.argsort(scores, axis=1)[:, 1]
    x_adv = Noise(0.3)(model, x, y).numpy()
    assert np.all(np.argmax(model(x_adv), axis=1) != y)
    same = np.all(x_adv == x, axis=(1, 2, 3))
    assert 0 < same.sum() < len(x)  # those that the noise repaired


def test_is_no_ball_and_no_search():
    attack = Noise(0.1)
    assert attack.eps is None and attack.norm == "l2"
    assert not attack.searches and not attack.needs_gradient
    assert Noise(0.1, kind="salt_and_pepper", repeats=3).name == "salt and pepper noise 0.1 x3"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rms": -0.1}, r"`rms` must be a finite number >= 0 .* got rms=-0.1"),
        ({"rms": np.inf}, "`rms` must be a finite number >= 0"),
        ({"rms": "0.1"}, "`rms` must be a finite number >= 0"),
        ({"rms": 0.1, "kind": "pink"}, "`kind` must be one of 'gaussian', .* got kind='pink'"),
        ({"rms": 0.1, "repeats": 0}, "`repeats` must be an int >= 1"),
        ({"rms": 0.1, "share": 0}, r"`share` must be in \(0, 1\], got share=0"),
        ({"rms": 0.1, "bounds": (1, 0)}, r"`bounds` must be \(low, high\)"),
    ],
)
def test_settings_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        Noise(**arguments)
