"""Ensemble: examples made for the model that is drawn."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust._seed import split
from keras_robust.training.objectives import Ensemble, Free, Madry, Mixed


@pytest.mark.parametrize("own", [True, False])
def test_each_step_draws_a_source_and_attacks_it(net, batch, step_for, own):
    x, y = tf.constant(batch[0]), tf.constant(batch[2], tf.int32)
    others = [type(net)(seed=1), type(net)(seed=2)]
    objective = Ensemble(others, own=own)
    drawn = set()
    for seed in range(12):
        step = step_for(net, seed=seed)
        found = objective.perturb(step, x, y).numpy()
        attack_seed = split(step.seed)[1]
        fits = [
            np.allclose(found, step.attack.run(source, x, y, attack_seed, 0.1), atol=1e-6)
            for source in [net, *others]
        ]
        assert sum(fits) == 1
        drawn.add(fits.index(True))
    assert drawn == ({0, 1, 2} if own else {1, 2})


def test_inner_objective_minimises(net, batch, step_for):
    x, x_adv, y, weight = batch
    ours, inner = (
        objective.minimise(step_for(net), x, x_adv, y, weight).loss
        for objective in (Ensemble([net], inner=Mixed(0.3)), Mixed(0.3))
    )
    np.testing.assert_array_equal(ours, inner)


def test_the_network_itself_is_trained_on_the_others_examples(net, batch, step_for, check_gradient):
    x, _, y, weight = batch
    other, step = type(net)(seed=1), step_for(net)
    objective = Ensemble([other], own=False, inner=Mixed(0.3))
    x, labels = tf.constant(x), tf.constant(y, tf.int32)
    x_adv = objective.perturb(step, x, labels).numpy()
    made = step.attack.run(other, x, labels, split(step.seed)[1], 0.1)
    np.testing.assert_array_equal(x_adv, made)

    def loss():
        return objective.minimise(step, x, x_adv, y, weight).loss

    each = 0.7 * net.cross_entropy(x.numpy(), y) + 0.3 * net.cross_entropy(x_adv, y)
    np.testing.assert_allclose(loss(), np.mean(weight * each), rtol=1e-10)
    check_gradient(net.trainable_variables, loss)
    with tf.GradientTape() as tape:
        value = loss()
    assert set(tape.gradient(value, other.trainable_variables)) == {None}


def test_other_models_stay_as_they_are(cnn, blobs):
    data = tf.data.Dataset.from_tensor_slices(blobs(16)).batch(16)
    other, model = cnn(seed=5, batch_norm=True), cnn()
    before = other.get_weights()
    trainer = kr.AdversarialTraining(model, kr.attacks.FGSM(0.1), Ensemble([other], own=False))
    trainer.compile(keras.optimizers.SGD(0.1))
    trainer.fit(data, epochs=2, verbose=0)
    for a, b in zip(before, other.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_repr_is_the_same_in_every_process(cnn):
    """Runs are told apart by it, and a model's own may hold an address."""
    one, other = (repr(Ensemble([cnn()], own=False)) for _ in range(2))
    assert "0x" not in one and one.split("[")[0] == other.split("[")[0]
    assert one.endswith("own=False, inner=Madry())")


def test_wrong_settings_are_refused(cnn):
    layers = [keras.Input((4,)), keras.layers.Dense(3, activation="softmax")]
    with pytest.raises(ValueError, match="`models` must be a list of models, got models=\\[\\]"):
        Ensemble([])
    with pytest.raises(ValueError, match=r"`models\[0\]` ends in a softmax"):
        Ensemble([keras.Sequential(layers)])
    with pytest.raises(ValueError, match="Ensemble cannot be wrapped around Free"):
        Ensemble([cnn()], inner=Free())
    with pytest.raises(TypeError, match="`inner` must be an objective"):
        Ensemble([cnn()], inner=Madry)
