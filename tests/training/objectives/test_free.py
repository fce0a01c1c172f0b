"""Free: the algorithm written out, its limits, and the state that it carries."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.training.objectives import Fast, Free

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
EPS = 0.2


def trained(model, data, objective, rate=0.1, epochs=1, **settings):
    attack = settings.pop("attack", kr.attacks.PGD(EPS, steps=2))
    trainer = kr.AdversarialTraining(model, attack, objective=objective)
    trainer.compile(keras.optimizers.SGD(rate), LOSS)
    trainer.fit(data, epochs=epochs, verbose=0, **settings)
    return trainer


def batches(x, y, size=16):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(size)


def assert_same_weights(one, other, tolerance=1e-6):
    for a, b in zip(one.get_weights(), other.get_weights()):
        np.testing.assert_allclose(a, b, atol=tolerance)


def twin(model, x, y, replays, size=16, epochs=1):
    """Algorithm 1 of Shafahi et al. in plain TensorFlow; the carried rows and the weights."""
    delta = np.zeros((size, *x.shape[1:]), "float32")
    for _ in range(epochs):
        for start in range(0, len(x), size):
            part, labels = x[start : start + size], y[start : start + size]
            rows = len(part)
            for _ in range(replays):
                place = tf.constant(np.clip(part + delta[:rows], 0, 1))
                with tf.GradientTape() as tape:
                    tape.watch(place)
                    loss = LOSS(labels, model(place, training=True))
                *slopes, slope = tape.gradient(loss, [*model.trainable_variables, place])
                for variable, gradient in zip(model.trainable_variables, slopes):
                    variable.assign(tf.convert_to_tensor(variable) - 0.1 * gradient)
                delta[:rows] = np.clip(delta[:rows] + EPS * np.sign(slope), -EPS, EPS)
    return delta


def test_is_the_algorithm_written_out(cnn, blobs):
    """24 images in batches of 16: the second batch is short, and carries the first rows on."""
    (x, y), model, reference = blobs(24), cnn(batch_norm=True), cnn(batch_norm=True)
    delta = twin(reference, x, y, replays=3, epochs=2)
    trainer = trained(model, batches(x, y), Free(replays=3), epochs=2)
    np.testing.assert_allclose(trainer.carried_variables()[0].numpy(), delta, atol=1e-6)
    assert_same_weights(model, reference, 1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_two_replays_in_numpy(net, batch, step_for, norm):
    """One gradient moves weights and perturbation, both after the loss that it is of."""
    x, _, y, weight = batch
    x = 0.25 + 0.5 * x  # The bounds cut nothing here.
    objective, copy, delta = Free(alpha=0.7), type(net)(), np.zeros(x.shape)
    step = step_for(net, kr.attacks.PGD(0.1, norm=norm), carried=tf.zeros(x.shape))
    for _ in range(2):
        moved = objective.perturb(step, tf.constant(x), None)
        with tf.GradientTape() as tape:
            tape.watch(moved)
            loss = objective.minimise(step, x, moved, y, weight).loss
        *slopes, slope = tape.gradient(loss, [*net.trainable_variables, moved])
        for variable, gradient in zip(net.trainable_variables, slopes):
            variable.assign_sub(0.5 * gradient)
        step = dataclasses.replace(step, carried=objective.carry(step, x, slope))

        expected = np.mean(weight * copy.cross_entropy(x + delta, y))
        np.testing.assert_allclose(loss, expected, rtol=1e-6)  # Perturbations are float32.
        *slopes, slope = copy.slopes(x + delta, y, weight)
        for variable, gradient in zip(copy.trainable_variables, slopes):
            variable.assign_sub(0.5 * gradient)
        if norm == "linf":
            delta = np.clip(delta + 0.07 * np.sign(slope), -0.1, 0.1)
        else:
            delta += 0.07 * slope / np.linalg.norm(slope, axis=1, keepdims=True)
            delta /= np.maximum(np.linalg.norm(delta, axis=1, keepdims=True) / 0.1, 1)
        np.testing.assert_allclose(step.carried, delta, atol=1e-6)
    for one, other in zip(net.trainable_variables, copy.trainable_variables):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_gradient_by_finite_differences(net, batch, step_for, check_gradient):
    """That of the weights, and that of the examples, which the perturbation follows."""
    x, x_adv, y, weight = batch
    step, moved = step_for(net), tf.Variable(x_adv, dtype=tf.float64)
    check_gradient(
        [*net.trainable_variables, moved],
        lambda: Free().minimise(step, x, moved, y, weight).loss,
    )


def test_replays_are_steps_on_repeated_batches(cnn, blobs):
    (x, y), replayed, repeated = blobs(32), cnn(), cnn()
    trained(replayed, batches(x, y), Free(replays=2))
    thrice = batches(x, y).flat_map(lambda *b: tf.data.Dataset.from_tensors(b).repeat(2))
    trained(repeated, thrice, Free(replays=1))
    assert_same_weights(replayed, repeated)


def test_first_step_is_plain_training(cnn, blobs):
    (x, y), plain, model = blobs(16), cnn(), cnn()
    plain.compile(keras.optimizers.SGD(0.1), LOSS)
    plain.fit(batches(x, y), verbose=0)
    trained(model, batches(x, y), Free(replays=1))
    assert_same_weights(model, plain)


def test_one_replay_leaves_the_example_of_fast_without_random_start(cnn, blobs, step_for):
    """What the next replay trains on: the same step, taken one replay earlier."""
    (x, y), model = blobs(16), cnn()
    trainer = trained(model, batches(x, y), Free(replays=1), rate=0.0)
    left = x + trainer.carried_variables()[0].numpy()
    fast = Fast(alpha=1.0, random_start=False)
    step = step_for(model, kr.attacks.PGD(EPS, steps=2))
    expected = fast.perturb(step, tf.constant(x), tf.constant(y))
    np.testing.assert_allclose(np.clip(left, 0, 1), expected, atol=1e-6)


def test_one_replay_is_fast_without_random_start_from_the_second_step_on(rng):
    """Where the signs of the input gradients stay: two classes, linear, rows of one label.

    Free's perturbation is of the weights and images of the step before; the first is none, so
    that the first step is plain training. The weights move all the while.
    """
    x = rng.uniform(0.3, 0.7, size=(12, 5)).astype("float32")
    x, y = np.concatenate([x, 0.9 * x, 1.1 * x]), np.tile([0, 1] * 6, 3).astype("int32")
    start = rng.normal(size=(5, 2)).astype("float32")

    def network():
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2, use_bias=False)])
        model.set_weights([start])
        return model

    free, fast = network(), network()
    trained(free, batches(x, y, 12), Free(replays=1))
    fast.compile(keras.optimizers.SGD(0.1), LOSS)
    fast.fit(batches(x[:12], y[:12], 12), verbose=0)
    first = fast.get_weights()[0]
    trained(fast, batches(x[12:], y[12:], 12), Fast(alpha=1.0, random_start=False))
    assert_same_weights(free, fast)
    plain = network()
    plain.compile(keras.optimizers.SGD(0.1), LOSS)
    plain.fit(batches(x, y, 12), verbose=0)
    for other in (first, plain.get_weights()[0]):
        assert np.abs(fast.get_weights()[0] - other).max() > 1e-3


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_stays_in_the_ball(cnn, blobs, norm):
    x, y = blobs(24)
    attack = kr.attacks.FGSM(0.3, norm=norm)
    trainer = trained(cnn(), batches(x, y), Free(replays=2, alpha=0.7), epochs=2, attack=attack)
    delta = trainer.carried_variables()[0].numpy().reshape(16, -1)
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    sizes = np.linalg.norm(delta, order, axis=1)
    assert 0.1 < sizes.max() <= 0.3 + 1e-5


def test_arrays_and_batches_longer_than_before(cnn, blobs):
    (x, y), model = blobs(48), cnn()
    trainer = trained(model, batches(x, y, 16), Free(replays=2))
    trainer.fit(batches(x, y, 40), verbose=0)
    assert trainer.carried_variables()[0].shape[0] == 16
    other = kr.AdversarialTraining(cnn(), kr.attacks.FGSM(EPS), Free(replays=2))
    other.compile(keras.optimizers.SGD(0.1), LOSS)
    other.fit(x, y, batch_size=20, verbose=0)
    assert other.carried_variables()[0].shape[0] == 20
    assert all(np.all(np.isfinite(w)) for w in other.model.get_weights())


def test_resumes_to_the_same_weights(cnn, blobs, tmp_path):
    x, y = blobs(24)
    whole, parts = cnn(), cnn()
    trained(whole, batches(x, y), Free(replays=2), epochs=3, resume=tmp_path / "whole")
    for epochs in (1, 3):
        trained(parts, batches(x, y), Free(replays=2), epochs=epochs, resume=tmp_path / "parts")
    assert_same_weights(whole, parts, 0)


def test_generators_are_refused(cnn, blobs):
    trainer = kr.AdversarialTraining(cnn(), kr.attacks.FGSM(EPS), Free())
    trainer.compile("sgd", LOSS)
    with pytest.raises(
        ValueError, match="Free.*carries a perturbation for each row.*Give it arrays"
    ):
        trainer.fit((pair for pair in [blobs(16)]), verbose=0)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="`replays` must be an int >= 1, got replays=0"):
        Free(replays=0)
    with pytest.raises(ValueError, match="`alpha` must be a finite number >= 0, got alpha=-1"):
        Free(alpha=-1)
    with pytest.raises(ValueError, match="`alpha` must be > 0 in units of eps, got alpha=0"):
        Free(alpha=0)
