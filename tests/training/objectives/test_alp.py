"""Adversarial logit pairing: its sum, its gradient, its limit."""

import numpy as np
import pytest

from keras_robust.training.objectives import ALP, Mixed


def cross_entropy(y, logits):
    return np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(y)), y]


def test_minimises_the_papers_sum(net, batch, step_for):
    x, x_adv, y, weight = batch
    clean, adv = net.numpy(x), net.numpy(x_adv)
    outcome = ALP(weight=0.7).minimise(step_for(net), x, x_adv, y, weight)
    each = (cross_entropy(y, clean) + cross_entropy(y, adv)) / 2
    expected = np.mean(weight * (each + 0.7 * np.sum((clean - adv) ** 2, axis=1)))
    np.testing.assert_allclose(outcome.loss, expected, rtol=1e-10)


def test_without_weight_is_half_and_half(net, batch, step_for):
    x, x_adv, y, weight = batch
    ours, mixed = (
        objective.minimise(step_for(net), x, x_adv, y, weight).loss
        for objective in (ALP(weight=0.0), Mixed(0.5))
    )
    np.testing.assert_allclose(ours, mixed, rtol=1e-12)


def test_gradient_by_finite_differences(net, batch, step_for, check_gradient):
    x, x_adv, y, weight = batch
    step = step_for(net)
    check_gradient(net.trainable_variables, lambda: ALP().minimise(step, x, x_adv, y, weight).loss)


def test_negative_weight_is_refused():
    with pytest.raises(ValueError, match="`weight` must be a finite number >= 0, got weight=-1"):
        ALP(weight=-1)
