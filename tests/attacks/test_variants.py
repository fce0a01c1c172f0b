"""BIM, MI-FGSM, R+FGSM, and expectation over transformation."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust import losses
from keras_robust.attacks import BIM, FGSM, MIFGSM, PGD, RFGSM
from keras_robust.attacks._attack import make_goal, value_and_gradient


def sign_iteration(model, x, y, eps, steps, decay):
    """I-FGSM and MI-FGSM of Dong et al. 2018 in numpy, steps of eps / steps."""
    velocity, x_adv = np.zeros_like(x), x.copy()
    for _ in range(steps):
        with tf.GradientTape() as tape:
            point = tf.constant(x_adv)
            tape.watch(point)
            loss = losses.cross_entropy(y, model(point))
        gradient = tape.gradient(loss, point).numpy()
        velocity = decay * velocity + gradient / np.abs(gradient).sum((1, 2, 3), keepdims=True)
        x_adv = np.clip(x_adv + eps / steps * np.sign(velocity), 0, 1)
    return x_adv


@pytest.mark.parametrize(("make", "decay"), [(BIM, 0.0), (MIFGSM, 1.0)])
def test_takes_the_steps_of_the_paper(cnn, blobs, make, decay):
    model, (x, y) = cnn(), blobs(6)
    expected = sign_iteration(model, x, y, 0.2, 4, decay)
    x_adv = make(0.2, 4, keep_best=False)(model, x, y)
    np.testing.assert_allclose(x_adv, expected, atol=1e-6)
    assert np.abs(sign_iteration(model, x, y, 0.2, 4, 1.0 - decay) - expected).max() > 0.01


def test_variants_are_pgd_with_settings_and_have_names():
    assert BIM(0.1) == PGD(0.1, steps=10, step_size=0.01, random_start=False)
    assert MIFGSM(0.1, 5, decay=0.9, step_size=0.03, norm="l2", loss="dlr") == PGD(
        0.1, norm="l2", steps=5, step_size=0.03, momentum=0.9, random_start=False, loss="dlr"
    )
    names = [attack.name for attack in (BIM(0.1), RFGSM(0.1), MIFGSM(0.1), PGD(0.1, eot=4))]
    assert names == ["BIM-10", "R+FGSM", "MI-FGSM-10", "PGD-20 eot 4"]


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match=r"`momentum` must be in \[0, 1\], got momentum=2.0"):
        MIFGSM(0.1, decay=2.0)
    with pytest.raises(ValueError, match="`steps` must be an int >= 1"):
        BIM(0.1, 0)
    with pytest.raises(ValueError, match=r"`alpha` must be in \[0, eps\], got alpha=0.2 with"):
        RFGSM(0.1, alpha=0.2)
    with pytest.raises(ValueError, match="RFGSM works in the norms 'linf', got norm='l2'"):
        RFGSM(0.1, norm="l2")
    with pytest.raises(ValueError, match="`eot` must be an int >= 1, got eot=0"):
        PGD(0.1, eot=0)


@pytest.mark.parametrize("alpha", [None, 0.02, 0.1])
def test_rfgsm_steps_by_signs_and_then_along_the_gradient(linear, rng, alpha):
    model, eps = linear(200, classes=2), 0.1
    x = rng.uniform(0.2, 0.8, size=(8, 200)).astype("float32")
    y = np.argmax(model(x), axis=1)
    delta = RFGSM(eps, alpha)(model, x, y, seed=3).numpy() - x
    way = np.sign(model.weights[:, 1 - y] - model.weights[:, y]).T
    # The random sign agrees with the gradient's or not: two values, half of each.
    first = eps / 2 if alpha is None else alpha
    np.testing.assert_allclose(np.abs(np.abs(delta * way - (eps - first)) - first), 0, atol=1e-6)
    assert 0.4 < np.mean(delta * way > eps - first) < 0.6 or first == 0
    again = RFGSM(eps, alpha)(model, x, y, seed=3).numpy() - x
    np.testing.assert_array_equal(delta, again)
    assert np.any(delta != RFGSM(eps, alpha)(model, x, y, seed=4).numpy() - x)


def test_rfgsm_without_random_step_is_fgsm_and_stays_in_bounds(cnn, blobs):
    model, (x, y) = cnn(), blobs(12)
    plain = RFGSM(0.3, alpha=0.0)(model, x, y)
    np.testing.assert_allclose(plain, FGSM(0.3)(model, x, y), atol=1e-7)
    x_adv = RFGSM(0.3)(model, x, y).numpy()
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    assert np.abs(np.float64(x_adv) - x).max() <= 0.3 + 1e-6
    np.testing.assert_array_equal(RFGSM(0.0)(model, x, y), x)


def down(labels, logits):
    """A loss whose rise makes the label likelier."""
    return -losses.cross_entropy(labels, logits)


@pytest.mark.parametrize("settings", [{}, {"targeted": True}, {"loss": down}])
def test_rfgsm_hands_its_settings_on(linear, rng, settings):
    model, x = linear(30, classes=3), rng.uniform(-1, -0.5, size=(6, 30)).astype("float32")
    y, bounds = np.argmax(model(x), axis=1), (-1.0, 1.0)
    expected = FGSM(0.3, bounds=bounds, **settings)(model, x, y)
    found = RFGSM(0.3, alpha=0.0, bounds=bounds, **settings)(model, x, y)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found - x).max() == pytest.approx(0.3, abs=1e-6) and np.min(found) == -1
    if settings:
        assert np.abs(expected - FGSM(0.3, bounds=bounds)(model, x, y)).max() > 0.5


def test_rfgsm_trains(cnn, blobs):
    x, y = blobs()
    clean = np.mean(losses.cross_entropy(y, cnn()(x)))
    trainer = kr.AdversarialTraining(cnn(), RFGSM(0.1))
    trainer.compile("adam")
    history = trainer.fit(x, y, epochs=1, batch_size=32, verbose=0)
    # What it trains on is harder than the images as they are.
    assert clean + 0.05 < history.history["loss"][0] < clean + 1


class Noisy:
    """Logits of an input that is shifted by noise, anew at each call; not linear in it."""

    def __init__(self, model, scale):
        self.model, self.scale = model, scale
        self.noise = tf.random.Generator.from_seed(0)

    def __call__(self, x):
        shifted = x + self.scale * self.noise.normal(tf.shape(x))
        return self.model(tf.sin(3 * shifted))


def test_the_gradient_approaches_the_mean_gradient(linear, rng):
    """E[cos(3 (x + s n))] = cos(3 x) exp(-9 s^2 / 2): the mean margin has a closed form."""
    scale, model = 0.4, linear(20, classes=2)
    x = rng.uniform(size=(6, 20)).astype("float32")
    y = tf.zeros(6, tf.int32)
    weights = model.weights[:, 1] - model.weights[:, 0]
    shrink = np.exp(-9 * scale**2 / 2)
    mean = 3 * weights * np.cos(3 * x) * shrink
    noisy, errors = Noisy(model, scale), {}
    for calls in (1, 16, 1024):
        goal = make_goal(noisy, y, losses.margin, eot=calls)
        value, gradient = tf.function(value_and_gradient)(goal, tf.constant(x))
        errors[calls] = np.sqrt(np.mean((gradient - mean) ** 2))
    value_of_mean = (np.sin(3 * x) @ weights) * shrink + model.bias[1] - model.bias[0]
    np.testing.assert_allclose(value.climb, value_of_mean, atol=0.5)
    # Errors shrink as one over the square root of the calls.
    assert 2.5 < errors[1] / errors[16] < 6.5 and 5 < errors[16] / errors[1024] < 13


def test_a_model_without_noise_needs_one_call(cnn, blobs):
    model, (x, y) = cnn(), blobs(6)
    once = PGD(0.2, steps=3)(model, x, y, seed=1)
    np.testing.assert_allclose(PGD(0.2, steps=3, eot=3)(model, x, y, seed=1), once, atol=1e-6)


def test_fooled_is_what_fools_most_calls(linear):
    """One row that noise leaves alone, one that it tips over now and then, one in most calls."""
    weights = tf.constant([[1.0, -1.0]])
    generator = tf.random.Generator.from_seed(1)

    def model(x):
        return (x + generator.normal(tf.shape(x))) @ weights

    x, y = tf.constant([[8.0], [0.5], [-0.5]]), tf.zeros(3, tf.int32)
    value = tf.function(make_goal(model, y, losses.margin, eot=400))(x)
    assert value.fooled.numpy().tolist() == [False, False, True]
    reached = tf.function(make_goal(model, y, losses.margin, reach=True, eot=400))(x)
    assert reached.fooled.numpy().tolist() == [True, True, False]
    np.testing.assert_allclose(reached.climb, -value.climb, atol=0.5)


def test_eot_beats_one_call_on_a_noisy_model(linear, rng):
    model = Noisy(linear(40, classes=3), 0.6)
    x = rng.uniform(size=(60, 40)).astype("float32")
    clean = sum(np.array(model(x)) for _ in range(200))
    y = np.argmax(clean, axis=1)

    def wrong(attack):
        x_adv = attack(model, x, y)
        return np.mean([np.argmax(model(x_adv), axis=1) != y for _ in range(40)])

    settings = {"steps": 20, "loss": "margin", "keep_best": False}
    assert wrong(PGD(0.1, eot=30, **settings)) > wrong(PGD(0.1, **settings)) + 0.03


def test_eot_works_on_keras_models_with_noise_layers(rng):
    keras = kr._keras.keras

    calls = []

    class Noise(keras.layers.Layer):
        def call(self, inputs):
            tf.numpy_function(lambda: calls.append(1) or np.int32(0), [], tf.int32)
            return inputs + 0.1 * tf.random.normal(tf.shape(inputs))

    model = keras.Sequential([keras.Input((6,)), Noise(), keras.layers.Dense(3)])
    x = rng.uniform(size=(4, 6)).astype("float32")
    for steps in (3, 12):
        calls.clear()
        assert np.isfinite(PGD(0.1, steps=steps, eot=4)(model, x, [0, 1, 2, 0])).all()
        # Each gradient and the last point four times, and once to see that it gives logits.
        assert len(calls) == 4 * (steps + 1) + 1


def test_eot_has_the_error_of_a_model_without_gradient(rng):
    x = rng.uniform(size=(3, 5)).astype("float32")
    with pytest.raises(ValueError, match="`model` has no gradient with respect to its input"):
        PGD(0.1, eot=2)(lambda x: tf.constant(3 * np.eye(3), tf.float32), x, [0, 1, 2])
