"""Universal perturbations: one for all images, exact where the model is linear."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf

from keras_robust.attacks import UniversalPerturbation

ORDER = {"linf": np.inf, "l2": 2}


def sizes(delta, norm):
    delta = np.float64(delta)
    return np.linalg.norm(delta.reshape(len(delta), -1), ORDER[norm], axis=1)


def wrong(model, x, y):
    return np.argmax(model(x), axis=1) != y


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.5)])
@pytest.mark.parametrize("method", ["gradient", "deepfool"])
def test_against_a_linear_model_it_is_the_best_direction(linear, rng, norm, eps, method):
    """All images are of one class, so that one direction is best for all of them."""
    plain = linear(30)
    x = rng.uniform(0.3, 0.7, size=(200, 30)).astype("float32")
    middle = np.mean(plain(x), axis=0)

    def model(x):
        return plain(x) - middle

    x = x[np.argmax(model(x), axis=1) == 0]
    assert len(x) >= 20
    attack = UniversalPerturbation(eps, norm=norm, method=method, epochs=3, batch_size=16)
    delta = attack.find(model, x[:20], np.zeros(20, int)).numpy()
    assert delta.shape == (1, 30) and sizes(delta, norm)[0] <= eps * (1 + 1e-6)
    normal = plain.weights[:, 1] - plain.weights[:, 0]
    best = np.sign(normal) if norm == "linf" else normal / np.linalg.norm(normal)
    if method == "gradient":
        np.testing.assert_allclose(delta[0], eps * best, atol=0.01 * eps)
    else:  # l2 steps: they stop when the images are fooled
        reached = delta[0] @ normal / (eps * best @ normal)
        assert reached > 0.6 or wrong(model, attack.apply(x[:20], delta), 0).mean() > 0.9


def test_fools_images_that_it_was_not_made_for(cnn, blobs, rng):
    """Far more than noise of the same size, which every image could absorb."""
    model, (x, _) = cnn(), blobs(96)
    y = np.argmax(model(x), axis=1)
    attack = UniversalPerturbation(0.25, batch_size=16)
    delta = attack.find(model, x[:48], y[:48])
    fooled = wrong(model, attack.apply(x[48:], delta), y[48:]).mean()
    noise = [
        wrong(model, attack.apply(x[48:], 0.25 * rng.choice([-1, 1], (1, 6, 6, 1))), y[48:]).mean()
        for _ in range(5)
    ]
    assert fooled > 0.5 and fooled > max(noise) + 0.2


def test_a_call_adds_what_find_finds(cnn, blobs):
    model, (x, y) = cnn(), blobs(30)
    attack = UniversalPerturbation(0.2, epochs=2, batch_size=8)
    x_adv = attack(model, x, y, seed=3).numpy()
    delta = attack.find(model, x, y, seed=3)
    expected = attack.apply(x, delta).numpy()
    repaired = wrong(model, x, y) & ~wrong(model, expected, y)
    np.testing.assert_allclose(x_adv[~repaired], expected[~repaired], atol=1e-6)
    np.testing.assert_array_equal(x_adv[repaired], x[repaired])
    assert np.all(wrong(model, x_adv, y) >= wrong(model, x, y))


def test_the_order_of_images_comes_from_the_seed(cnn, blobs):
    model, (x, y) = cnn(), blobs(30)
    attack = UniversalPerturbation(0.2, norm="l2", epochs=1, batch_size=4)
    first = attack.find(model, x, y, seed=1)
    np.testing.assert_array_equal(first, attack.find(model, x, y, seed=1))
    assert not np.array_equal(first, attack.find(model, x, y, seed=2))


def test_bounds_hold_entries_only_one_way():
    """The first entry is at its upper bound and is to rise: nothing to gain there.

    The second one is to fall, as far as the ball goes.
    """
    weights = tf.constant([[-1.0, 1.0], [1.0, -1.0]])
    x = np.array([[1.0, 0.5]] * 4, "float32")
    delta = UniversalPerturbation(0.2).find(lambda x: x @ weights, x, [0] * 4).numpy()
    assert delta[0, 0] == 0 and delta[0, 1] == pytest.approx(-0.2, abs=1e-6)
    x_adv = UniversalPerturbation(0.2)(lambda x: x @ weights, x, [1] * 4).numpy()
    np.testing.assert_allclose(x_adv, [[0.8, 0.7]] * 4, atol=1e-6)


def test_soft_labels_and_huge_logits_change_nothing(cnn, blobs):
    model, (x, y) = cnn(), blobs(30)
    attack = UniversalPerturbation(0.2, epochs=1, batch_size=8)
    delta = attack.find(model, x, y)
    soft = 0.9 * np.eye(3, dtype="float32")[y] + 0.03
    np.testing.assert_allclose(attack.find(model, x, soft), delta, atol=1e-6)
    # Powers of two round alike.
    huge = attack.find(lambda x: 2.0**60 * model(x), x, y)
    np.testing.assert_allclose(huge, delta, atol=1e-5)


def test_find_runs_inside_a_function(cnn, blobs):
    model, (x, y) = cnn(), blobs(12)
    attack = UniversalPerturbation(0.2, epochs=1, batch_size=8)
    found = tf.function(lambda: attack.find(model, x, y), autograph=False)()
    np.testing.assert_allclose(found, attack.find(model, x, y), atol=1e-6)


@pytest.mark.once
@hypothesis.settings(max_examples=10, deadline=None)
@hypothesis.given(
    norm=st.sampled_from(["linf", "l2"]),
    method=st.sampled_from(["gradient", "deepfool"]),
    eps=st.one_of(st.just(0.0), st.floats(1e-3, 3.0)),
    bounds=st.sampled_from([(0.0, 1.0), (-3.0, 5.0)]),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    seed=st.integers(0, 2**50),
)
def test_stays_in_ball_and_bounds(linear, norm, method, eps, bounds, dtype, seed):
    generator = np.random.default_rng(seed)
    model = linear(12, classes=3, seed=seed % 1000)
    x = generator.uniform(*bounds, size=(5, 3, 4)).astype(dtype)
    y = generator.integers(0, 3, size=5)
    attack = UniversalPerturbation(
        eps, norm=norm, method=method, bounds=bounds, epochs=2, batch_size=3
    )
    x_adv = attack(model, x, y, seed=seed).numpy()
    assert x_adv.dtype == np.float32 and x_adv.shape == x.shape
    x = x.astype("float32")
    assert np.all(np.isfinite(x_adv))
    assert sizes(np.float64(x_adv) - np.float64(x), norm).max() <= eps + 1e-6
    assert x_adv.min() >= bounds[0] and x_adv.max() <= bounds[1]
    assert np.all(wrong(model, x_adv, y) >= wrong(model, x, y))
    np.testing.assert_array_equal(attack(model, x, y, seed=seed), x_adv)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "l1"}, "UniversalPerturbation works in the norms 'linf', 'l2', got norm='l1'"),
        ({"eps": None}, "`eps` must be a finite number >= 0"),
        ({"method": "adam"}, "`method` must be one of 'gradient', 'deepfool', got method='adam'"),
        ({"epochs": 0}, "`epochs` must be an int >= 1, got epochs=0"),
        ({"batch_size": 0}, "`batch_size` must be an int >= 1, got batch_size=0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        UniversalPerturbation(**{"eps": 0.1, **settings})


def test_find_checks_its_arguments(linear):
    attack, model, x = UniversalPerturbation(0.1), linear(3), np.full((2, 3), 0.5, "float32")
    with pytest.raises(ValueError, match="`x` and `y` must have the same length, got 2 and 3"):
        attack.find(model, x, [0, 1, 1])
    with pytest.raises(ValueError, match=r"`y` must be in \[0, 2\), got labels in \[0, 2\]"):
        attack.find(model, x, [0, 2])
    with pytest.raises(ValueError, match="outside bounds"):
        attack.apply(2 * x + 1, tf.zeros([1, 3]))
    with pytest.raises(ValueError, match=r"`delta` must have the shape \(1, 3\) .*, got \(3, 3\)"):
        attack.apply(x, tf.zeros([3, 3]))
