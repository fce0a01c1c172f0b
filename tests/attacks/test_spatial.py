"""Rotations and translations, against numpy and scipy, and the grid that is searched."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import keras_robust as kr
from keras_robust.attacks._spatial import transformed

Spatial = kr.attacks.Spatial


def test_no_move_changes_nothing(rng):
    x = rng.uniform(size=(3, 7, 10, 2)).astype("float32")
    np.testing.assert_array_equal(transformed(x, [[0.0, 0.0, 0.0]], 0.0, 1.0), x)


def test_whole_pixels_and_right_angles_are_exact(rng):
    x = rng.uniform(size=(2, 6, 6, 3)).astype("float32")
    moved = transformed(x, [[0.0, 2.0, -1.0]], 0.0, 1.0).numpy()
    np.testing.assert_array_equal(moved[:, 2:, :-1], x[:, :-2, 1:])
    assert not moved[:, :2].any() and not moved[:, :, -1].any()
    turned = transformed(x, [[90.0, 0.0, 0.0]], 0.0, 1.0)
    np.testing.assert_allclose(turned, np.rot90(x, axes=(1, 2)), atol=1e-5)


@pytest.mark.parametrize("move", [(20.0, 0.0, 0.0), (0.0, 0.5, -1.25), (-33.0, 1.5, 2.25)])
def test_agrees_with_scipy(rng, move):
    """Inside the image: at its rim scipy blends with the outside in another way."""
    image = ndimage.gaussian_filter(rng.uniform(size=(21, 18)), 1.0).astype("float32")
    angle, shift = np.deg2rad(move[0]), np.array(move[1:])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    middle = (np.array(image.shape) - 1) / 2
    expected = ndimage.affine_transform(image, turn, middle - turn @ (middle + shift), order=1)
    got = transformed(image[None, :, :, None], [move], 0.0, 1.0)[0, :, :, 0].numpy()
    inner = slice(6, -6)
    np.testing.assert_allclose(got[inner, inner], expected[inner, inner], atol=1e-4)


def test_what_comes_in_is_the_low_bound(rng):
    x = rng.uniform(-0.5, 2.0, size=(1, 5, 5, 1)).astype("float32")
    moved = transformed(x, [[0.0, 3.0, 0.0]], -1.0, 2.0).numpy()
    assert np.all(moved[:, :3] == -1.0)


def dot(x):
    """Class 1 when the middle is dark."""
    return tf.stack([x[:, 3, 3, 0], 0.5 + 0 * x[:, 3, 3, 0]], axis=1)


@pytest.fixture
def point():
    x = np.zeros((1, 7, 7, 1), "float32")
    x[0, 3, 3] = 1.0
    return x


def test_takes_the_mildest_that_fools(point):
    x_adv = Spatial(degrees=0, pixels=3, shifts=7)(dot, point, [0]).numpy()
    assert np.abs(np.argwhere(x_adv[0, :, :, 0])[0] - 3).sum() == 1


def test_asks_no_more_once_an_image_has_fallen(point):
    x = np.concatenate([point, np.ones_like(point)])
    box = kr.attacks.BlackBox(lambda x: dot(x).numpy(), classes=2)
    x_adv = Spatial(degrees=0, pixels=1, shifts=3)(box, x, [0, 0]).numpy()
    # The check, no move, the first move, 7 more for the image that stands, and its start.
    assert box.queries == 2 + 2 + 2 + 7 + 1
    assert dot(x_adv)[1, 0] == 1.0


def test_a_rotation_alone_can_fool():
    x = np.zeros((1, 9, 9, 1), "float32")
    x[0, 4] = 1.0  # a bar

    def upright(x):
        across, down = tf.reduce_sum(x[:, 4, :, 0], 1), tf.reduce_sum(x[:, :, 4, 0], 1)
        return tf.stack([across, down], axis=1)

    still = Spatial(degrees=40, pixels=0, angles=9)(upright, x, [0])
    assert np.argmax(upright(still)) == 0
    fallen = Spatial(degrees=90, pixels=0, angles=9)(upright, x, [0])
    assert np.argmax(upright(fallen)) == 1


def test_random_moves_are_found_too(point):
    x = np.repeat(point, 8, axis=0)
    x_adv = Spatial(degrees=10, pixels=3, samples=10)(dot, x, [0] * 8)
    assert np.all(np.argmax(dot(x_adv), axis=1) == 1)
    assert not np.allclose(x_adv[0], x_adv[1])


@settings(max_examples=6, deadline=None)
@given(
    samples=st.sampled_from([None, 4]),
    degrees=st.sampled_from([0.0, 20.0, 180.0]),
    bounds=st.sampled_from([(0.0, 1.0), (-1.0, 2.0)]),
    seed=st.integers(0, 99),
)
def test_stays_in_bounds_and_is_never_worse(samples, degrees, bounds, seed):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(40, 3)).astype("float32")
    x = rng.uniform(*bounds, size=(6, 5, 4, 2)).astype("float32")
    y = rng.integers(0, 3, size=6)

    def model(x):
        return tf.reshape(x, [-1, 40]) @ weights

    attack = Spatial(degrees, 1, angles=3, shifts=2, samples=samples, bounds=bounds)
    x_adv = attack(model, x, y, seed=seed).numpy()
    np.testing.assert_array_equal(x_adv, attack(model, x, y, seed=seed))
    assert np.isfinite(x_adv).all() and x_adv.min() >= bounds[0] and x_adv.max() <= bounds[1]
    already = np.argmax(model(x), axis=1) != y
    assert np.all(np.argmax(model(x_adv), axis=1)[already] != y[already])


def test_no_move_at_all_is_the_identity(cnn, blobs):
    x, y = blobs(6)
    np.testing.assert_array_equal(Spatial(degrees=0, pixels=0)(cnn(), x, y), x)


def test_what_are_no_images_is_refused(linear):
    with pytest.raises(ValueError, match=r"`x` must be images \(batch, height, width, channels\)"):
        Spatial()(linear(4), np.zeros((2, 4), "float32"), [0, 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"degrees": 181}, r"`degrees` must be a finite number .* in \[0, 180\], got degrees=181"),
        ({"pixels": -1}, "`pixels` must be a finite number of pixels"),
        ({"pixels": np.inf}, "`pixels` must be a finite number of pixels"),
        ({"angles": 0}, "`angles` must be an int >= 1"),
        ({"samples": 0}, "`samples` must be an int >= 1"),
        ({"bounds": (1, 1)}, r"`bounds` must be \(low, high\)"),
    ],
)
def test_settings_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        Spatial(**arguments)


def test_is_in_no_norm():
    attack = Spatial()
    assert attack.eps is None and attack.norm == "spatial" and not attack.searches
    assert attack.name == "Spatial 30 deg 3 px"
    assert len(attack._grid()) == 775 and not attack._grid()[0].any()
