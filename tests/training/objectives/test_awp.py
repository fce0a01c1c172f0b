"""Adversarial weight perturbation: the gradient there, the weights here."""

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.training.objectives import AWP, TRADES, Free, Madry


def slope(weights, x, y):
    p = scipy.special.softmax(x @ weights, axis=1)
    return x.T @ (p - np.eye(p.shape[1])[y]) / len(y)


def test_gradient_is_taken_at_the_moved_weights(linear_net, batch, step_for):
    """One layer in numpy: w + gamma |w| g / |g|, with g the gradient at w."""
    x, x_adv, y = batch[0], batch[1].astype("float64"), batch[2] % 2
    before = linear_net.w.numpy()
    with tf.GradientTape() as tape:
        loss = AWP(gamma=0.2).minimise(step_for(linear_net), x, x_adv, y, None).loss
    first = slope(before, x_adv, y)
    moved = before + 0.2 * np.linalg.norm(before) * first / np.linalg.norm(first)
    np.testing.assert_allclose(
        tape.gradient(loss, linear_net.w), slope(moved, x_adv, y), atol=1e-12
    )
    np.testing.assert_array_equal(linear_net.w.numpy(), before)


def test_each_kernel_moves_by_its_share_and_biases_stay(net, batch, step_for):
    x, x_adv, y, _ = batch
    seen = []

    class Spy(type(net)):
        def __call__(self, x, training=False):
            if training:
                seen.append([v.numpy() for v in (self.w1, self.w2, self.b1)])
            return super().__call__(x, training)

    spy = Spy()
    AWP(gamma=0.1).minimise(step_for(spy), x, x_adv, y, None)
    (w1, w2, b1), now = seen[0], [v.numpy() for v in (spy.w1, spy.w2, spy.b1)]
    for moved, kept in ((w1, now[0]), (w2, now[1])):
        distance = np.linalg.norm(moved - kept) / np.linalg.norm(kept)
        np.testing.assert_allclose(distance, 0.1, rtol=1e-10)
    np.testing.assert_array_equal(b1, now[2])


@pytest.mark.parametrize("inner", [Madry(), TRADES()])
def test_gradient_by_finite_differences_at_the_moved_weights(
    net, batch, step_for, check_gradient, inner
):
    """Where the kernels move to is held fixed, and the biases stay."""
    x, x_adv, y, weight = batch
    step, kernels = step_for(net), [net.w1, net.w2]

    def inner_loss():
        return inner.minimise(step, x, x_adv, y, weight).loss

    with tf.GradientTape() as tape:
        loss = inner_loss()
    slopes = [slope.numpy() for slope in tape.gradient(loss, kernels)]
    ways = [
        0.2 * np.linalg.norm(w.numpy()) * slope / np.linalg.norm(slope)
        for w, slope in zip(kernels, slopes)
    ]

    def value():
        kept = [w.numpy() for w in kernels]
        for w, way in zip(kernels, ways):
            w.assign_add(way)
        there = inner_loss()
        for w, old in zip(kernels, kept):
            w.assign(old)
        return there

    awp = AWP(0.2, inner)
    check_gradient(
        net.trainable_variables, lambda: awp.minimise(step, x, x_adv, y, weight).loss, value
    )


def fitted(model, data, objective):
    trainer = kr.AdversarialTraining(model, kr.attacks.PGD(0.2, steps=2), objective=objective)
    trainer.compile(keras.optimizers.SGD(0.1))
    trainer.fit(data, epochs=2, verbose=0)
    return model.get_weights()


@pytest.mark.parametrize("gamma", [0.0, 1e-6])
def test_without_gamma_is_the_inner_objective(cnn, blobs, gamma):
    data = tf.data.Dataset.from_tensor_slices(blobs(24)).batch(16)
    models = [cnn(batch_norm=True) for _ in range(3)]
    awp = fitted(models[0], data, AWP(gamma=gamma))
    for a, b in zip(awp, fitted(models[1], data, Madry())):
        np.testing.assert_allclose(a, b, atol=1e-5)
    if gamma:
        far = fitted(models[2], data, AWP(gamma=0.5))
        assert max(np.abs(a - b).max() for a, b in zip(awp, far)) > 1e-3


def test_weights_come_back_to_the_bit_in_a_compiled_step(cnn, blobs):
    data = tf.data.Dataset.from_tensor_slices(blobs(16)).batch(16)
    model = cnn()
    before = model.get_weights()
    trainer = kr.AdversarialTraining(model, kr.attacks.FGSM(0.1), AWP(0.1))
    trainer.compile(keras.optimizers.SGD(0.0))
    trainer.fit(data, verbose=0)
    for a, b in zip(before, model.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_unfit_inner_objectives_are_refused():
    with pytest.raises(TypeError, match="`inner` must be an objective such as .*Madry.*got 'x'"):
        AWP(inner="x")
    with pytest.raises(ValueError, match="AWP cannot be wrapped around Free.*replays its batches"):
        AWP(inner=Free())
    with pytest.raises(ValueError, match="`gamma` must be a finite number >= 0, got gamma=-1"):
        AWP(gamma=-1)
