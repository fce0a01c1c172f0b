"""Szegedy's attack is exact on linear models: two classes, several, and at the bounds."""

import threading

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf
from scipy import optimize

import keras_robust as kr
from keras_robust.attacks import LBFGS


def distances(x, x_adv):
    return np.linalg.norm((np.asarray(x_adv, "float64") - x).reshape(len(x), -1), axis=1)


def nearest_by_slsqp(model, x, own, others, bounds=(0.0, 1.0)):
    """The nearest point in bounds where a class of `others` beats `own`, class by class."""
    weights, bias = model.weights.astype("float64"), model.bias.astype("float64")
    x, best = x.astype("float64"), np.inf
    for other in others:
        normal, offset = weights[:, other] - weights[:, own], bias[other] - bias[own]
        result = optimize.minimize(
            lambda z: np.sum((z - x) ** 2),
            x,
            jac=lambda z: 2 * (z - x),
            bounds=[bounds] * len(x),
            constraints={
                "type": "ineq",
                "fun": lambda z, n=normal, o=offset: n @ z + o,
                "jac": lambda z, n=normal: n,
            },
            method="SLSQP",
            options={"maxiter": 300, "ftol": 1e-12},
        )
        if normal @ result.x + offset >= -1e-6:
            best = min(best, np.linalg.norm(result.x - x))
    return best


def test_two_classes_are_exact(linear, rng):
    """|w.x + b| / |w|, for small and huge logits alike."""
    x = rng.uniform(0.45, 0.55, size=(6, 20)).astype("float32")
    for scale in (1e-3, 1.0, 1e3):
        model = linear(20)
        model.bias -= model(x[:1]).numpy()[0] - np.float32([0.3, 0])
        model.weights, model.bias = scale * model.weights, scale * model.bias
        logits = model(x).numpy().astype("float64")
        y = np.argmax(logits, axis=1)
        x_adv = LBFGS()(model, x, y)
        assert np.all(np.argmax(model(x_adv), axis=1) != y)
        exact = np.abs(logits[:, 1] - logits[:, 0]) / np.linalg.norm(
            model.weights[:, 1] - model.weights[:, 0]
        )
        np.testing.assert_allclose(distances(x, x_adv), exact, rtol=3e-3)


@pytest.mark.parametrize("low", [0.0, 0.35])
def test_several_classes_and_bounds_are_exact(linear, rng, low):
    """The nearest of all classes, also where many pixels are black or white (`low=0`)."""
    model = linear(16, classes=5)
    x = np.clip(rng.uniform(low - 0.4, 1.4 - low, size=(6, 16)), 0, 1).astype("float32")
    y = np.argmax(model(x), axis=1)
    x_adv = LBFGS()(model, x, y)
    exact = [nearest_by_slsqp(model, r, c, set(range(5)) - {c}) for r, c in zip(x, y)]
    assert np.all(np.isfinite(exact))
    np.testing.assert_allclose(distances(x, x_adv), exact, rtol=5e-3)


def test_targets_are_reached_near_the_nearest_point(linear, rng):
    """The cross-entropy of all classes is not quite the boundary: within a tenth of it."""
    model = linear(16, classes=3)
    x = rng.uniform(0.3, 0.7, size=(5, 16)).astype("float32")
    target = (np.argmax(model(x), axis=1) + 1) % 3
    x_adv = LBFGS(targeted=True)(model, x, target)
    assert np.all(np.argmax(model(x_adv), axis=1) == target)
    lower = [
        nearest_by_slsqp(model, r, c, [t]) for r, c, t in zip(x, model(x).numpy().argmax(1), target)
    ]
    assert np.all(distances(x, x_adv) >= np.array(lower) * 0.999)
    assert np.median(distances(x, x_adv) / np.array(lower)) < 1.1


def test_which_classes_are_tried(linear, rng):
    """The likeliest wrong class may be far: trying all is never worse, nor is the nearest here."""
    model = linear(16, classes=5)
    model.weights[:, 1] *= 0.1
    x = rng.uniform(0.3, 0.7, size=(8, 16)).astype("float32")
    y = np.argmax(model(x), axis=1)
    likely, nearest, all_ = (
        distances(x, LBFGS(targets=targets)(model, x, y)) for targets in ("likely", "nearest", 4)
    )
    np.testing.assert_allclose(nearest, all_, rtol=5e-3)
    assert np.all(all_ <= likely * 1.001) and np.any(all_ < 0.95 * likely)


def test_nearer_than_carlini_wagner_on_a_network(cnn, blobs):
    model, (x, _) = cnn(), blobs(12)
    y = np.argmax(model(x), axis=1)
    x_adv = LBFGS(targets=2)(model, x, y)
    other = kr.attacks.CarliniWagner(steps=200, search_steps=5)(model, x, y)
    assert np.all(np.argmax(model(x_adv), axis=1) != y)
    assert np.all(distances(x, x_adv) <= 1.02 * distances(x, other))


def test_more_iterations_come_nearer(linear, rng):
    plain, x = linear(12), rng.uniform(size=(4, 12)).astype("float32")

    def model(x):
        return plain(tf.sin(4 * x))

    y = np.argmax(model(x), axis=1)
    one, many = (distances(x, LBFGS(iterations=n)(model, x, y)) for n in (1, 100))
    assert np.all(one >= 0.999 * many) and np.mean(one) > 1.1 * np.mean(many)


def test_rms_is_per_value():
    x = np.zeros((2, 2, 2), "float32")
    x_adv = x + np.float32([[[0.1, 0.1], [0.1, 0.1]], [[0.4, 0.0], [0.0, 0.0]]])
    got = kr.attacks.rms(x, x_adv)
    assert got.dtype == tf.float64
    np.testing.assert_allclose(got, [0.1, 0.2], rtol=1e-6)


def test_works_inside_a_tf_function_and_ends_its_threads(cnn, blobs):
    model, (x, _) = cnn(), blobs(6)
    y = np.argmax(model(x), axis=1)
    before = threading.active_count()
    inside = tf.function(lambda x, y: LBFGS()(model, x, y))(tf.constant(x), tf.constant(y))
    np.testing.assert_allclose(inside, LBFGS()(model, x, y), atol=1e-4)
    assert threading.active_count() <= before + 1


def test_rows_without_an_example_come_back_as_they_were(linear, rng):
    model = linear(12)
    model.bias += np.float32([1e3, 0])
    x = rng.uniform(size=(4, 12)).astype("float32")
    np.testing.assert_array_equal(LBFGS()(model, x, [0, 0, 1, 1]), x)


def test_models_without_gradient_are_refused():
    constant = tf.constant(np.eye(4, 3), tf.float32)
    with pytest.raises(ValueError, match="`model` has no gradient with respect to its input"):
        LBFGS()(lambda x: constant, np.full((4, 6), 0.5, "float32"), [0, 1, 2, 0])


_MODELS = {}


@pytest.mark.once
@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(
    eps=st.one_of(st.none(), st.just(0.0), st.floats(1e-3, 2.0)),
    kind=st.sampled_from([((0.0, 1.0), 2, False), ((-3.0, 5.0), "nearest", True)]),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    seed=st.integers(0, 2**50),
)
def test_stays_in_ball_and_bounds(linear, eps, kind, dtype, seed):
    (bounds, targets, targeted), generator = kind, np.random.default_rng(seed)
    model = _MODELS.setdefault(0, linear(12, classes=3))
    x = generator.uniform(*bounds, size=(4, 3, 4)).astype(dtype)
    y = generator.integers(0, 3, size=4)
    attack = LBFGS(eps, targets=targets, search_steps=3, targeted=targeted, bounds=bounds)
    x_adv = attack(model, x, y, seed=seed)
    assert np.all(np.isfinite(x_adv)) and x_adv.dtype == tf.float32
    assert np.all((x_adv >= bounds[0]) & (x_adv <= bounds[1]))
    done = (np.argmax(model(x), axis=1) == y) == targeted
    after = (np.argmax(model(x_adv), axis=1) == y) == targeted
    distance = distances(x.astype("float32"), x_adv)
    assert np.all(after >= done) and np.all(after[distance > 0])
    assert np.all(distance[done] == 0)
    if eps is not None:
        assert np.all(distance <= eps + 1e-6)
    if eps == 0:
        np.testing.assert_array_equal(x_adv, x.astype("float32"))
    np.testing.assert_array_equal(x_adv, attack(model, x, y, seed=seed))


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ({"norm": "l1"}, ValueError, "LBFGS works in the norms 'l2', got norm='l1'"),
        ({"targets": "all"}, ValueError, "`targets` must be 'nearest', 'likely' or an int >= 1"),
        ({"targets": 0}, ValueError, "`targets` must be an int >= 1, got targets=0"),
        ({"iterations": 0}, ValueError, "`iterations` must be an int >= 1, got iterations=0"),
        ({"targeted": "no"}, TypeError, "`targeted` must be True or False, got targeted='no'"),
    ],
)
def test_wrong_settings_are_refused(setting, error, message):
    with pytest.raises(error, match=message):
        LBFGS(**setting)


def test_is_a_search_with_a_name():
    assert LBFGS.searches and LBFGS().name == "L-BFGS"
    assert LBFGS(targets=3).name == "L-BFGS targets=3"
    assert LBFGS(targeted=True).name == "L-BFGS targeted"
