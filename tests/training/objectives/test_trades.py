"""TRADES: its limits, its inner and its outer problem."""

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.attacks._attack import call_logits
from keras_robust.training.objectives import TRADES, Step
from keras_robust.training.objectives._objective import divergence_from

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def make_step(model, attack):
    def compiled(y, logits, weight):
        return tf.reduce_mean(kr.losses.cross_entropy(y, logits))

    return Step(model, attack, attack.eps, tf.constant([0, 0]), compiled)


def test_without_beta_is_plain_training(cnn, blobs):
    (x, y), plain, model = blobs(32), cnn(), cnn()
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    plain.compile(keras.optimizers.SGD(0.1), LOSS)
    plain.fit(data, epochs=2, verbose=0)
    attack = kr.attacks.PGD(0.2, steps=2)
    trainer = kr.AdversarialTraining(model, attack, objective=TRADES(beta=0.0))
    trainer.compile(keras.optimizers.SGD(0.1), LOSS)
    trainer.fit(data, epochs=2, verbose=0)
    for a, b in zip(plain.get_weights(), model.get_weights()):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_climbs_the_divergence_from_the_clean_prediction(cnn, blobs):
    """Further than the attack on the labels does, and further than the random start."""
    model, (x, y) = cnn(), blobs(24)
    attack = kr.attacks.PGD(0.2, steps=10)
    step = make_step(model, attack)
    clean = model(x)

    def reached(x_adv):
        return float(tf.reduce_mean(kr.losses.kl_divergence(clean, model(x_adv))))

    ours = reached(TRADES().perturb(step, tf.constant(x), tf.constant(y)))
    start = reached(kr.attacks.PGD(0.2, steps=1, step_size=0.0)(model, x, y))
    assert ours > 5 * start
    assert ours >= 0.99 * reached(attack(model, x, y))


def test_attack_climbs_the_divergence_and_knows_no_labels(net, batch, step_for):
    step = step_for(net, seed=4)
    x, y = tf.constant(batch[0]), tf.constant(batch[2], tf.int32)
    found, relabelled = (TRADES().perturb(step, x, labels) for labels in (y, (y + 1) % 3))
    np.testing.assert_array_equal(found, relabelled)
    goal = divergence_from(call_logits(net, x), net)
    expected = step.attack.perturb(goal, x, step.seed, step.eps)
    np.testing.assert_array_equal(found, expected)
    assert np.any(found != step.attacked(x, y))


def test_minimises_the_papers_sum(net, batch, step_for):
    """Weights count in the divergence too."""
    x, x_adv, y, weight = batch
    outcome = TRADES(beta=3.0).minimise(step_for(net), x, x_adv, y, weight)
    p, q = (scipy.special.softmax(net.numpy(z), axis=1) for z in (x, x_adv))
    divergence = np.sum(p * np.log(p / q), axis=1)
    expected = np.mean(weight * (net.cross_entropy(x, y) + 3 * divergence))
    np.testing.assert_allclose(outcome.loss, expected, rtol=1e-10)


def test_gradient_by_finite_differences(net, batch, step_for, check_gradient):
    """It flows through the clean prediction of the divergence, too."""
    x, x_adv, y, weight = batch
    step = step_for(net)
    check_gradient(
        net.trainable_variables, lambda: TRADES().minimise(step, x, x_adv, y, weight).loss
    )


def test_small_gradients_do_not_vanish_in_float16(rng):
    """Those of a divergence that has hardly begun, through a mean over many pixels."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        start = [keras.initializers.GlorotUniform(seed=i) for i in range(2)]
        layers = [keras.layers.Conv2D(16, 3, activation="relu", kernel_initializer=start[0])]
        layers += [keras.layers.GlobalAveragePooling2D()]
        layers += [keras.layers.Dense(10, kernel_initializer=start[1])]
        model = keras.Sequential([keras.Input((24, 24, 3)), *layers])
    finally:
        keras.mixed_precision.set_global_policy("float32")
    x = rng.uniform(size=(8, 24, 24, 3)).astype("float32")
    x_adv = tf.constant(x + rng.uniform(-0.03, 0.03, x.shape).astype("float32"))
    goal = divergence_from(call_logits(model, x), model)
    with tf.GradientTape() as tape:
        tape.watch(x_adv)
        value = goal(x_adv).climb
    gradient = tape.gradient(value, x_adv).numpy()
    assert np.mean(gradient == 0) < 0.05


def test_minimises_the_pure_loss(cnn, blobs):
    model, (x, y) = cnn(), blobs(8)
    x_adv = np.clip(x + 0.1, 0, 1)
    step = make_step(model, kr.attacks.PGD(0.1))
    outcome = TRADES(beta=3.0).minimise(step, x, x_adv, y, None)
    expected = kr.losses.trades(y, model(x), model(x_adv), beta=3.0)
    np.testing.assert_allclose(outcome.loss, tf.reduce_mean(expected), rtol=1e-5)
    np.testing.assert_allclose(outcome.logits, model(x))
    np.testing.assert_allclose(outcome.adv_logits, model(x_adv))


def test_needs_a_random_start(cnn):
    for objective in (TRADES(), kr.objectives.AWP(0.1, TRADES())):
        with pytest.raises(ValueError, match="TRADES needs an attack with random start"):
            kr.AdversarialTraining(cnn(), kr.attacks.FGSM(0.1), objective=objective)


def test_negative_beta_is_refused():
    with pytest.raises(ValueError, match="`beta` must be a finite number >= 0, got beta=-1"):
        TRADES(beta=-1)
