"""Ascent to a confidence: exact on a linear model; the temperature by its definition."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.attacks import ConfidenceAscent, match_temperature


def softmax(logits):
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("confidence", "temperature"), [(0.95, 1.0), (0.6, 0.3)])
def test_distance_on_a_linear_model_of_two_classes(linear, rng, confidence, temperature):
    """p reaches c where the difference of logits is t * log(c / (1 - c)), straight along w."""
    model = linear(12)
    x = rng.uniform(0.4, 0.6, size=(9, 12)).astype("float32")
    targets = np.arange(9) % 2
    attack = ConfidenceAscent(
        confidence=confidence, temperature=temperature, step_size=0.03, bounds=(-50, 50)
    )
    x_adv = attack(model, x, targets).numpy()
    sign = 2 * targets - 1
    w = model.weights[:, 1] - model.weights[:, 0]
    score = sign * (x @ w + model.bias[1] - model.bias[0])
    wanted = temperature * np.log(confidence / (1 - confidence))
    expected = np.maximum(wanted - score, 0) / np.linalg.norm(w)
    np.testing.assert_allclose(np.linalg.norm(x_adv - x, axis=1), expected, rtol=1e-4, atol=1e-6)
    assert expected.max() > 10 * attack.step_size  # many steps, the last one cut
    assert (expected == 0).any() or confidence > 0.9  # rows that are there already stay
    reached = softmax(model(x_adv).numpy() / temperature)[np.arange(9), targets]
    assert np.all(reached >= confidence - 1e-6)


def test_stays_in_bounds_and_gives_up_where_the_target_is_out_of_reach(linear, rng):
    model = linear(6, classes=3)
    x = rng.uniform(size=(8, 6)).astype("float32")
    targets = np.zeros(8, int)
    far = ConfidenceAscent(confidence=0.999999, temperature=10.0, steps=200)
    np.testing.assert_array_equal(far(model, x, targets), x)
    near = ConfidenceAscent(confidence=0.4, step_size=0.05, steps=200)(model, x, targets).numpy()
    assert near.min() >= 0 and near.max() <= 1
    moved = np.any(near != x, axis=1)
    assert moved.any()
    probability = softmax(model(near).numpy())[:, 0]
    np.testing.assert_allclose(probability[moved], 0.4, atol=1e-4)


def test_radius_leaves_rows_beyond_it_alone(linear, rng):
    model, x = linear(12), rng.uniform(size=(9, 12)).astype("float32")
    targets = np.arange(9) % 2
    settings = {"confidence": 0.8, "bounds": (-50, 50)}
    free = ConfidenceAscent(**settings)(model, x, targets).numpy()
    length = np.linalg.norm(free - x, axis=1)
    eps = float(np.mean(np.sort(length)[4:6]))  # between two rows
    kept = ConfidenceAscent(eps=eps, **settings)(model, x, targets).numpy()
    near = length <= eps
    assert near.any() and not near.all()
    np.testing.assert_allclose(kept[near], free[near], atol=1e-5)
    np.testing.assert_array_equal(kept[~near], x[~near])


def test_temperature_brings_the_median_confidence_and_undoes_a_scale(linear, rng):
    model, x = linear(12, classes=4), rng.uniform(size=(31, 12)).astype("float32")
    temperature = match_temperature(model, x, 0.9, batch_size=7)
    confidence = softmax(model(x).numpy().astype("float64") / temperature).max(axis=1)
    np.testing.assert_allclose(np.median(confidence), 0.9, atol=1e-6)
    scaled = match_temperature(lambda x: 7.0 * model(x), x, 0.9)
    np.testing.assert_allclose(scaled, 7 * temperature, rtol=1e-5)


def test_a_network_is_brought_exactly_to_the_confidence(cnn, blobs):
    model, (x, y) = cnn(), blobs(12)
    attack = ConfidenceAscent(confidence=0.5, temperature=0.2)
    assert attack.name == "Ascent to 0.5" and attack.searches and attack.targeted
    targets = (y + 1) % 3
    before = softmax(model(x).numpy() / 0.2)[np.arange(12), targets]
    x_adv = attack(model, x, targets)
    after = softmax(model(x_adv).numpy() / 0.2)[np.arange(12), targets]
    assert (before < 0.5).sum() > 3
    np.testing.assert_allclose(after, np.maximum(before, 0.5), atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "linf"}, "works in the norms 'l2'"),
        ({"confidence": 1.0}, r"`confidence` must be in \(0, 1\), got confidence=1.0"),
        ({"temperature": 0}, "`temperature` must be a finite number > 0, got temperature=0"),
        ({"step_size": -1.0}, "`step_size` must be a finite number > 0, got step_size=-1.0"),
        ({"steps": 0}, "`steps` must be an int >= 1"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        ConfidenceAscent(**settings)


def test_temperature_refuses_what_it_cannot_reach():
    x = np.zeros((4, 2), "float32")
    with pytest.raises(ValueError, match="above 1 / classes = 0.5, got 0.5"):
        match_temperature(lambda x: x + tf.constant([2.0, 0.0]), x, 0.5)
    with pytest.raises(ValueError, match="as sure of several classes as of the first"):
        match_temperature(lambda x: x, x, 0.9)
    with pytest.raises(ValueError, match=r"`confidence` must be in \(0, 1\)"):
        match_temperature(lambda x: x, x, 2)
    assert kr.attacks.match_temperature is match_temperature
