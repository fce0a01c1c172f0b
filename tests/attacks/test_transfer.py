"""Attacks made on one model and tried on another."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras

Transfer = kr.attacks.Transfer
PGD = kr.attacks.PGD


def test_on_the_surrogate_itself_it_is_the_attack(cnn, blobs):
    model, (x, _) = cnn(), blobs(24)
    y = np.argmax(model(x), axis=1)
    attack = PGD(0.1, steps=5)
    x_adv = Transfer(attack, model)(model, x, y, seed=3)
    np.testing.assert_array_equal(x_adv, attack(model, x, y, seed=3))


def test_fools_a_model_without_gradients(cnn, blobs):
    surrogate, (x, _) = cnn(), blobs(48)
    y = np.argmax(surrogate(x), axis=1)
    box = kr.attacks.BlackBox(lambda x: np.round(surrogate(x).numpy(), 1), classes=3)
    x_adv = Transfer(PGD(0.2, steps=10), surrogate)(box, x, y)
    assert np.mean(np.argmax(box(x_adv), axis=1) != y) > 0.3
    # The check, the examples, and the inputs: nothing else.
    assert box.queries == 4 * 48


def test_images_already_missed_stay_so(cnn, blobs):
    (x, y), surrogate, model = blobs(64), cnn(seed=0), cnn(seed=5)
    missed = np.argmax(model(x), axis=1) != y
    x_adv = Transfer(PGD(0.5, steps=3), surrogate)(model, x, y).numpy()
    assert missed.sum() > 5
    assert np.all(np.argmax(model(x_adv), axis=1)[missed] != y[missed])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_stays_in_ball_and_bounds(cnn, blobs, norm):
    (x, y), eps = blobs(12), 0.3
    x_adv = Transfer(PGD(eps, norm=norm, steps=3), cnn())(cnn(seed=5), x, y).numpy()
    delta = (x_adv.astype("float64") - x).reshape(len(x), -1)
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    assert np.linalg.norm(delta, order, axis=1).max() <= eps + 1e-6
    assert x_adv.min() >= 0 and x_adv.max() <= 1


def test_a_search_that_does_not_transfer_leaves_the_image(linear, rng):
    surrogate, x = linear(8), rng.uniform(0.3, 0.7, size=(12, 8)).astype("float32")
    y = np.argmax(surrogate(x), axis=1)
    attack = kr.attacks.HopSkipJump(queries=300)
    near = attack(surrogate, x, y).numpy()
    farther = tf.constant(surrogate.bias + [[0.0, 0.0]], tf.float32)

    def model(x):
        return surrogate(x) + 0.2 * tf.one_hot(y[: x.shape[0]], 2) + 0 * farther

    x_adv = Transfer(attack, surrogate)(model, x, y).numpy()
    np.testing.assert_array_equal(x_adv, x)
    np.testing.assert_array_equal(Transfer(attack, surrogate)(surrogate, x, y), near)


def test_works_inside_a_tf_function(cnn, blobs):
    (x, y), surrogate, model = blobs(12), cnn(), cnn(seed=5)
    attack = Transfer(PGD(0.1, steps=2), surrogate)
    run = tf.function(lambda x, y: attack(model, x, y, seed=1))
    x_adv = run(tf.constant(x), tf.constant(y))
    np.testing.assert_allclose(x_adv, attack(model, x, y, seed=1), atol=1e-6)


def test_models_that_stand_in_for_one_another_are_not_kept_alive(linear, rng):
    one, other = linear(8), linear(8, seed=1)
    x = rng.uniform(size=(2, 8)).astype("float32")
    Transfer(PGD(0.1, steps=2), one)(other, x, [0, 1])
    Transfer(PGD(0.1, steps=2), other)(one, x, [0, 1])
    references = [weakref.ref(one), weakref.ref(other)]
    del one, other
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_has_the_attacks_threat_model(cnn):
    model = cnn()
    attack = Transfer(PGD(0.1, norm="l2", bounds=(-1, 1)), model)
    assert (attack.eps, attack.norm, attack.bounds) == (0.1, "l2", (-1.0, 1.0))
    assert not attack.needs_gradient and not attack.searches and not attack.targeted
    assert attack.name == f"PGD-20 l2 via {model.name}"
    assert Transfer(kr.attacks.HopSkipJump(), model).searches
    assert attack.for_eps_one().attack.eps == 1.0


def test_settings_and_labels_are_checked(cnn, blobs):
    with pytest.raises(TypeError, match="`attack` must be an attack .* got float"):
        Transfer(0.1, cnn())
    with pytest.raises(ValueError, match="`surrogate` ends in a softmax"):
        Transfer(PGD(0.1), keras.Sequential([cnn(), keras.layers.Softmax()]))
    (x, y), wide = blobs(6), cnn(classes=4)
    with pytest.raises(ValueError, match=r"`y` must be in \[0, 3\)"):
        Transfer(PGD(0.1), wide)(cnn(), x, y + 1)
