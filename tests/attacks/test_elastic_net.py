"""The elastic-net attack: sparse, and near the exact minimum on linear models."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import ElasticNet
from keras_robust.attacks._weight_search import Step

FEW = {"steps": 100, "search_steps": 5}


def flat(x, x_adv):
    return (np.asarray(x_adv, "float64") - x).reshape(len(x), -1)


def elastic(delta, beta):
    return np.sum(delta**2, axis=1) + beta * np.sum(np.abs(delta), axis=1)


def exact_elastic(normal, rise, beta):
    """The minimum of `|r|_2^2 + beta |r|_1` with `normal @ r = rise`, by its multiplier."""
    low, high = 0.0, 1e6

    def step(multiplier):
        return np.sign(normal) * np.maximum(multiplier * np.abs(normal) - beta, 0) / 2

    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if normal @ step(middle) >= rise else (middle, high)
    return elastic(step(high)[None], beta)[0]


@pytest.mark.parametrize("beta", [0.0, 0.01, 1.0])
def test_elastic_distance_is_exact_on_a_linear_model(linear, rng, beta):
    model = linear(30)
    x = (0.5 + 0.05 * rng.normal(size=(6, 30))).astype("float32")
    model.bias -= model(x[:1]).numpy()[0] - np.float32([0.5, 0])
    logits = model(x).numpy().astype("float64")
    y = np.argmax(logits, axis=1)
    x_adv = ElasticNet(beta=beta, steps=300, search_steps=8)(model, x, y)
    assert np.all(np.argmax(model(x_adv), axis=1) != y)
    normal = (model.weights[:, 1] - model.weights[:, 0]).astype("float64")
    rises = np.abs(logits[:, 1] - logits[:, 0])
    exact = [exact_elastic(normal, rise, beta) for rise in rises]
    np.testing.assert_allclose(elastic(flat(x, x_adv), beta), exact, rtol=0.05, atol=1e-6)


def test_l1_rule_changes_few_entries(linear, rng):
    """With room the shortest way in l1 is along the largest weight alone: gap / max |w|."""
    model = linear(30)
    x = (0.5 + 0.01 * rng.normal(size=(6, 30))).astype("float32")
    model.bias -= model(x[:1]).numpy()[0] - np.float32([1.0, 0])
    logits = model(x).numpy()
    y = np.argmax(logits, axis=1)
    delta = flat(x, ElasticNet(rule="l1", steps=300, search_steps=8)(model, x, y))
    normal = model.weights[:, 1] - model.weights[:, 0]
    least = np.abs(logits[:, 1] - logits[:, 0]) / np.abs(normal).max()
    assert np.all(np.abs(delta).sum(axis=1) <= 1.01 * least)
    assert np.all(np.abs(delta).sum(axis=1) >= least - 1e-6)
    assert np.all(np.sum(delta != 0, axis=1) <= 2)


def test_shorter_in_l1_than_carlini_wagner(cnn, blobs):
    model, (x, _) = cnn(), blobs(16)
    y = np.argmax(model(x), axis=1)
    sparse = ElasticNet(**FEW, rule="l1")(model, x, y)
    round_ = kr.attacks.CarliniWagner(**FEW)(model, x, y)
    assert np.all(np.argmax(model(sparse), axis=1) != y)
    assert np.median(np.abs(flat(x, sparse)).sum(axis=1)) < 0.9 * np.median(
        np.abs(flat(x, round_)).sum(axis=1)
    )


def test_targets_are_reached_with_confidence(linear, rng):
    model = linear(30, classes=4)
    x = rng.uniform(0.3, 0.7, size=(6, 30)).astype("float32")
    target = (np.argmax(model(x), axis=1) + 1) % 4
    x_adv = ElasticNet(**FEW, targeted=True, confidence=1.0)(model, x, target)
    assert np.all(-kr.losses.margin(target, model(x_adv)).numpy() >= 1.0 - 1e-5)


@pytest.mark.once
@pytest.mark.parametrize("rule", ["EN", "l1"])
def test_the_first_step_by_hand(rule):
    """From x along the gradient of the margin, (0.2, -0.4), times weight and rate, shrunk."""
    weights, x, seen = np.float32([[0.1, -0.1], [-0.2, 0.2]]), tf.constant([[0.6, 0.5]]), []

    def model(points):
        seen.append(np.array(points)[0])
        return points @ weights

    attack = ElasticNet(
        rule=rule, beta=0.01, steps=10, search_steps=1, learning_rate=0.05, initial_const=4.0
    )
    attack.run(model, x, tf.constant([1]), tf.constant([0, 0]), float("inf"))
    moved = next(point for point in seen if np.any(point != seen[0])) - seen[0]
    shrunk = 0.01 if rule == "l1" else 0.05 * 0.01
    exact = [0.05 * 4.0 * 0.2 - shrunk, shrunk - 0.05 * 4.0 * 0.4]
    np.testing.assert_allclose(moved, exact, atol=1e-6)


class Scripted(ElasticNet):
    """Passes a sparse example, then ends at one with less elastic distance and more l1."""

    def _step(self, goal, variables, x, weight, taken):
        delta = tf.where(taken[:, None] < 5, [[0.3, 0.0, 0.0, 0.0]], [[0.1, 0.1, 0.1, 0.1]])
        distance = self._distance(delta)
        return Step(variables, x + delta, distance, distance, tf.ones_like(taken, tf.bool))


@pytest.mark.parametrize(
    ("eps", "expected"),
    [(0.35, [0.8, 0.5, 0.5, 0.5]), (0.45, [0.6] * 4), (None, [0.6] * 4), (0.2, [0.5] * 4)],
)
def test_an_example_outside_does_not_replace_one_inside(linear, eps, expected):
    model, x = linear(4), np.full((2, 4), 0.5, "float32")
    attack = Scripted(eps, steps=20, search_steps=2, abort_early=False)
    x_adv = attack(model, x, np.argmax(model(x), axis=1))
    np.testing.assert_allclose(x_adv, [expected] * 2, rtol=1e-6)


def test_same_result_in_other_units(linear, rng):
    model = linear(12)
    x = rng.uniform(size=(4, 12)).astype("float32")
    y = np.argmax(model(x), axis=1)
    unit = ElasticNet(**FEW)(model, x, y)
    pixels = ElasticNet(**FEW, bounds=(0.0, 256.0))(lambda p: model(p / 256), x * 256, y)
    np.testing.assert_allclose(pixels / 256, unit, atol=1e-4)


_MODELS = {}


@pytest.mark.once
@hypothesis.settings(max_examples=20, deadline=None)
@hypothesis.given(
    eps=st.one_of(st.none(), st.just(0.0), st.floats(1e-3, 4.0)),
    kind=st.sampled_from([((0.0, 1.0), "EN", False), ((-3.0, 5.0), "l1", True)]),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    seed=st.integers(0, 2**50),
)
def test_stays_in_ball_and_bounds(linear, eps, kind, dtype, seed):
    (bounds, rule, targeted), generator = kind, np.random.default_rng(seed)
    model = _MODELS.setdefault(0, linear(12, classes=3))
    x = generator.uniform(*bounds, size=(4, 3, 4)).astype(dtype)
    y = generator.integers(0, 3, size=4)
    attack = ElasticNet(eps, rule=rule, steps=20, search_steps=3, targeted=targeted, bounds=bounds)
    x_adv = attack(model, x, y, seed=seed)
    delta = flat(x.astype("float32"), x_adv)
    assert np.all(np.isfinite(x_adv)) and x_adv.dtype == tf.float32
    assert np.all((x_adv >= bounds[0]) & (x_adv <= bounds[1]))
    done = (np.argmax(model(x), axis=1) == y) == targeted
    after = (np.argmax(model(x_adv), axis=1) == y) == targeted
    assert np.all(after >= done)
    assert np.all(after[np.any(delta != 0, axis=1)])
    if eps is not None:
        assert np.all(np.abs(delta).sum(axis=1) <= eps + 1e-6)
    if eps == 0:
        np.testing.assert_array_equal(x_adv, x.astype("float32"))
    np.testing.assert_array_equal(x_adv, attack(model, x, y, seed=seed))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"norm": "l2"}, "ElasticNet works in the norms 'l1', got norm='l2'"),
        ({"rule": "L1"}, "`rule` must be 'EN' or 'l1', got rule='L1'"),
        ({"beta": -0.1}, "`beta` must be a finite number >= 0, got beta=-0.1"),
        ({"beta": "1"}, "`beta` must be a finite number >= 0, got beta='1'"),
        ({"steps": 0}, "`steps` must be an int >= 1, got steps=0"),
    ],
)
def test_wrong_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        ElasticNet(**setting)


def test_is_a_search_with_a_name():
    assert ElasticNet.searches and ElasticNet().name == "EAD EN"
    assert ElasticNet(rule="l1", targeted=True).name == "EAD l1 targeted"
