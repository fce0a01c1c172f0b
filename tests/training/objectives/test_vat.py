"""VAT: the direction in closed form, the sum in numpy, unlabelled examples."""

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.training.objectives import VAT


def test_direction_of_two_linear_classes(linear_net, batch, step_for):
    """The divergence then changes along the difference of the weights and nothing else."""
    x = tf.constant(0.5 + 0.1 * batch[0])
    step = step_for(linear_net, kr.attacks.FGSM(0.05, norm="l2"))
    moved = (VAT().perturb(step, x, None) - x).numpy()
    way = linear_net.w.numpy() @ [1, -1]
    expected = 0.05 * way / np.linalg.norm(way)
    signs = np.sign(moved @ expected)
    # Attacks are float32: two nearly equal predictions are subtracted.
    np.testing.assert_allclose(moved, signs[:, None] * expected, atol=1e-4)


def test_power_iteration_finds_the_largest_curvature(net, batch, step_for):
    """The dominant eigenvector of the Fisher information, written out in numpy."""
    x = 0.5 + 0.1 * batch[0]
    step = step_for(net, kr.attacks.FGSM(0.01, norm="l2"))
    x_adv = VAT(iterations=60, xi=1e-3).perturb(step, tf.constant(x), None)
    for row, moved in zip(x.astype("float64"), x_adv.numpy() - x):
        hidden = np.tanh(row @ net.w1.numpy() + net.b1.numpy())
        jacobian = net.w1.numpy() @ np.diag(1 - hidden**2) @ net.w2.numpy()
        p = scipy.special.softmax(net.numpy(row))
        fisher = jacobian @ (np.diag(p) - np.outer(p, p)) @ jacobian.T
        largest = np.linalg.eigh(fisher)[1][:, -1]
        assert abs(largest @ moved) / 0.01 > 0.999


def test_minimises_the_papers_sum(net, batch, step_for):
    """Weights count in the compiled loss alone: the divergence needs no label."""
    x, x_adv, y, weight = batch
    clean, adv = net.numpy(x), net.numpy(x_adv)
    outcome = VAT(weight=2.0).minimise(step_for(net), x, x_adv, y, weight)
    p, q = scipy.special.softmax(clean, axis=1), scipy.special.softmax(adv, axis=1)
    divergence = np.mean(scipy.special.rel_entr(p, q).sum(axis=1))
    expected = np.mean(-weight * np.log(p[np.arange(6), y])) + 2 * divergence
    np.testing.assert_allclose(outcome.loss, expected, rtol=1e-10)


def test_gradient_holds_the_clean_prediction_fixed(net, batch, step_for, check_gradient):
    x, x_adv, y, _ = batch
    step, clean = step_for(net), tf.constant(net.numpy(x))

    def value():
        divergence = tf.reduce_mean(kr.losses.kl_divergence(clean, net(x_adv)))
        return step.compiled_loss(y, net(x), None) + divergence

    check_gradient(
        net.trainable_variables, lambda: VAT().minimise(step, x, x_adv, y, None).loss, value
    )


def test_unlabelled_images_help(cnn, blobs):
    """Six labels for 96 images, the label of the others wrong and of weight zero."""
    x, y = blobs(96)
    labelled = (np.arange(96) < 6).astype("float32")
    weight = labelled / labelled.mean()
    stand_ins = np.where(labelled > 0, y, 0)
    moved = {}
    for kind, noise in (("stand-ins", stand_ins), ("others", np.where(labelled > 0, y, 2))):
        model = cnn()
        trainer = kr.AdversarialTraining(model, kr.attacks.FGSM(0.5, norm="l2"), VAT())
        trainer.compile(keras.optimizers.Adam(0.01))
        data = tf.data.Dataset.from_tensor_slices((x, noise, weight)).batch(48)
        trainer.fit(data, epochs=30, verbose=0)
        assert np.mean(np.argmax(model(x), 1) == y) > 0.9
        moved[kind] = model.get_weights()
    for a, b in zip(moved["stand-ins"], moved["others"]):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": -1.0}, "`weight` must be a finite number >= 0, got weight=-1"),
        ({"iterations": 0}, "`iterations` must be an int >= 1, got iterations=0"),
        ({"xi": 0.0}, "`xi` must be > 0 in the units of the inputs, got xi=0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        VAT(**settings)
