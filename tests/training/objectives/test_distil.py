"""Distil: each method's sum in numpy, its gradient, what its attack climbs."""

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from keras_robust.attacks._attack import call_logits
from keras_robust.training.objectives import Distil
from keras_robust.training.objectives._distil import METHODS
from keras_robust.training.objectives._objective import divergence_from

FORMS = [*METHODS, "no attack"]


@pytest.fixture
def teacher(net):
    return type(net)(seed=1)


def make(teachers, form):
    """Temperature 2, share 0.7 and trust 0.5, as in `twin`."""
    how = {"attacked": False} if form == "no attack" else {"method": form}
    return Distil(teachers, 2.0, 0.7, trust=0.5, **how)


def soft(wanted, logits):
    wanted = scipy.special.softmax(wanted / 2, axis=1)
    return -4 * np.sum(wanted * scipy.special.log_softmax(logits / 2, axis=1), axis=1)


def twin(form, y, clean, adv, own, taught, taught_adv):
    """The papers' sums for each example; `own` are the clean logits as "iad" teaches them."""
    rows = np.arange(len(y))
    hard = -scipy.special.log_softmax(clean, axis=1)[rows, y]
    if form == "no attack":
        return 0.7 * soft(taught, clean) + 0.3 * hard
    if form == "rslad":
        return 0.7 * soft(taught, adv) + 0.3 * soft(taught, clean)
    sure = scipy.special.softmax(taught_adv, axis=1)[rows, y] ** 0.5 if form == "iad" else 1.0
    return 0.7 * (sure * soft(taught, adv) + (1 - sure) * soft(own, adv)) + 0.3 * hard


@pytest.mark.parametrize("form", FORMS)
def test_minimises_the_papers_sum(net, batch, step_for, teacher, form):
    """At examples that are not the inputs, with weights, which count in each part."""
    x, x_adv, y, weight = batch
    outcome = make([teacher], form).minimise(step_for(net), x, x_adv, y, weight)
    clean, adv = net.numpy(x), net.numpy(x_adv)
    taught = teacher.numpy(x), teacher.numpy(x_adv)
    expected = np.mean(weight * twin(form, y, clean, adv, clean, *taught))
    # Teachers speak in float32.
    np.testing.assert_allclose(outcome.loss, expected, rtol=1e-6)
    np.testing.assert_allclose(outcome.logits, clean)
    np.testing.assert_allclose(outcome.adv_logits, clean if form == "no attack" else adv)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("itself", [False, True])
def test_gradient_holds_what_is_taught_fixed(
    net, batch, step_for, teacher, check_gradient, form, itself
):
    """Also where the teacher shares the student's weights: all of them, here."""
    x, x_adv, y, weight = batch
    teacher = net if itself else teacher
    objective, step, own = make([teacher], form), step_for(net), net.numpy(x)
    taught = teacher.numpy(x), teacher.numpy(x_adv)

    def value():
        return np.mean(weight * twin(form, y, net.numpy(x), net.numpy(x_adv), own, *taught))

    check_gradient(
        net.trainable_variables, lambda: objective.minimise(step, x, x_adv, y, weight).loss, value
    )


@pytest.mark.parametrize("form", ["ard", "rslad", "no attack"])
def test_stored_logits_teach_as_the_teacher_does(net, batch, step_for, teacher, form):
    x, x_adv, y, weight = batch
    step = step_for(net, teacher_logits=call_logits(teacher, x)[:, None])
    ours, asked = (
        make(teachers, form).minimise(step, x, x_adv, y, weight).loss
        for teachers in ("stored", [teacher])
    )
    np.testing.assert_array_equal(ours, asked)


def test_attack_of_rslad_climbs_the_divergence_and_knows_no_labels(net, batch, step_for, teacher):
    x, y = tf.constant(batch[0]), tf.constant(batch[2], tf.int32)
    step, objective = step_for(net, seed=4), make([teacher], "rslad")
    goal = divergence_from(call_logits(teacher, x), net)
    expected = step.attack.perturb(goal, x, step.seed, step.eps)
    for labels in (y, (y + 1) % 3):
        np.testing.assert_array_equal(objective.perturb(step, x, labels), expected)
    assert np.any(expected != step.attacked(x, y))


def test_attack_of_the_others_is_the_trainers(net, batch, step_for, teacher):
    x, y = tf.constant(batch[0]), tf.constant(batch[2], tf.int32)
    step = step_for(net, seed=4)
    for form, expected in (("ard", step.attacked(x, y)), ("iad", step.attacked(x, y))):
        np.testing.assert_array_equal(make([teacher], form).perturb(step, x, y), expected)
    np.testing.assert_array_equal(make([teacher], "no attack").perturb(step, x, y), x)


@pytest.mark.parametrize("stored", [False, True])
def test_probabilities_of_teachers_are_no_logits(net, batch, step_for, teacher, stored):
    """What a SavedModel, a subclassed model or a callable ends in shows in its values alone."""
    # A few rows of logits may look so by chance.
    x, _, y, weight = (np.concatenate([part] * 8) for part in batch)
    soft = lambda x: tf.nn.softmax(call_logits(teacher, x))  # noqa: E731
    taught = tf.stack([call_logits(teacher, x), soft(x)], axis=1)
    objective = make("stored" if stored else [teacher, soft], "no attack")
    step = step_for(net, teacher_logits=taught)
    run = tf.function(lambda: objective.minimise(step, x, x, y, weight).loss)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"`teachers\[1\]` returned proba"):
        run()
