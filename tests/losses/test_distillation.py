"""Distillation: the notes' numbers, a numpy twin, and gradients that do not shrink with T."""

import numpy as np
import pytest
import tensorflow as tf

from keras_robust import losses
from keras_robust._keras import keras

LOGITS = np.array([[0.3, -0.7, 0.1], [1.0, 2.0, -1.0]])
TEACHER = np.array([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5]])


def softmax(z):
    z = np.exp(z - z.max(axis=-1, keepdims=True))
    return z / z.sum(axis=-1, keepdims=True)


def twin(y, z, v, temperature, alpha):
    soft = -(softmax(v / temperature) * np.log(softmax(z / temperature))).sum(axis=-1)
    hard = -np.log(softmax(z))[np.arange(len(y)), y]
    return alpha * temperature**2 * soft + (1 - alpha) * hard


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_equals_the_formula(temperature, alpha):
    got = losses.distillation([2, 1], LOGITS, TEACHER, temperature, alpha)
    np.testing.assert_allclose(got, twin([2, 1], LOGITS, TEACHER, temperature, alpha))


def test_a_temperature_of_100_softens_100_10_1():
    """Read off the gradient of a student that knows nothing: T times a third less that share."""
    z = tf.zeros((1, 3), tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss = losses.distillation(None, z, [[100.0, 10.0, 1.0]], 100.0, alpha=1.0)
    gradient = tape.gradient(loss, z)[0] / 100
    np.testing.assert_allclose(1 / 3 - gradient, [0.562, 0.229, 0.209], atol=6e-4)
    np.testing.assert_allclose(loss, 1e4 * np.log(3), rtol=1e-9)


def test_the_gradient_keeps_its_size_and_becomes_logit_matching():
    """papers.md 4.5: |g| T^2 is nearly the same at every T, and (z - v) / N at high T."""
    generator = np.random.default_rng(0)
    z, v = (tf.constant(generator.normal(size=(1, 10))) for _ in range(2))
    z, v = (each - tf.reduce_mean(each) for each in (z, v))
    limit, sizes, errors = (z - v) / 10, [], []
    for temperature in (1.0, 4.0, 20.0, 100.0):
        with tf.GradientTape() as tape:
            tape.watch(z)
            loss = losses.distillation(None, z, v, temperature, alpha=1.0)
        gradient = tape.gradient(loss, z)
        shares = [softmax(each.numpy() / temperature) for each in (z, v)]
        np.testing.assert_allclose(gradient, temperature * (shares[0] - shares[1]), rtol=1e-9)
        sizes.append(float(tf.norm(gradient)))
        errors.append(float(tf.norm(gradient - limit) / tf.norm(limit)))
    assert max(sizes) / min(sizes) < 1.5
    # The notes' errors are 48, 15, 3.0 and 0.6%, of other logits.
    for error, noted in zip(errors, (0.48, 0.15, 0.03, 0.006), strict=True):
        assert noted / 2 < error < 2 * noted


def test_gradient_by_finite_differences():
    exact, numeric = tf.test.compute_gradient(
        lambda z: losses.distillation([2, 1], z, TEACHER, 3.0, 0.7), [tf.constant(LOGITS)]
    )
    np.testing.assert_allclose(exact[0], numeric[0], atol=1e-6)


def test_means_of_two_teachers():
    both = [TEACHER, LOGITS]
    for temperature in (1.0, 5.0):
        got = losses.ensemble_logits(both, temperature, weights=[3, 1])
        expected = 0.75 * softmax(TEACHER / temperature) + 0.25 * softmax(LOGITS / temperature)
        np.testing.assert_allclose(tf.nn.softmax(got / temperature), expected)
    got = losses.ensemble_logits(both, 5.0, "geometric")
    np.testing.assert_allclose(got, (TEACHER + LOGITS) / 2)
    got = losses.ensemble_logits(both, 5.0, "geometric", weights=[3, 1])
    shares = softmax(TEACHER / 5) ** 0.75 * softmax(LOGITS / 5) ** 0.25
    expected = shares / shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(tf.nn.softmax(got / 5.0), expected)
    np.testing.assert_allclose(
        losses.ensemble_logits(both, weights=[0, 1]), np.log(softmax(LOGITS))
    )
    np.testing.assert_array_equal(losses.ensemble_logits([TEACHER], 3.0), TEACHER)


def test_a_teacher_sure_of_itself_keeps_a_finite_mean():
    far = [[[2000.0, 0.0]], [[0.0, 2000.0]]]
    got = losses.ensemble_logits(far, weights=[1, 3])
    np.testing.assert_allclose(tf.nn.softmax(got), [[0.25, 0.75]])


def test_the_compiled_loss_is_the_mean():
    one_hot = np.eye(3)[[2, 1]]
    loss = losses.Distillation(temperature=3.0, alpha=0.7)
    expected = twin([2, 1], LOGITS, TEACHER, 3.0, 0.7).mean()
    got = loss(np.stack([TEACHER, one_hot], axis=1), LOGITS)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    soft = losses.Distillation(temperature=3.0, alpha=1.0)
    np.testing.assert_allclose(
        soft(TEACHER, LOGITS), twin([2, 1], LOGITS, TEACHER, 3.0, 1.0).mean(), rtol=1e-6
    )
    again = losses.Distillation.from_config(loss.get_config())
    assert (again.temperature, again.alpha) == (3.0, 0.7)


def test_plain_fit_brings_the_student_to_the_teacher():
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    weights = np.random.default_rng(1).normal(size=(4, 3)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile(keras.optimizers.Adam(0.1), losses.Distillation(2.0, alpha=1.0))
    model.fit(x, x @ weights, epochs=60, verbose=0)
    got, wanted = (softmax(np.asarray(z)) for z in (model(x), x @ weights))
    np.testing.assert_allclose(got, wanted, atol=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.distillation([0], LOGITS, TEACHER, 0.0), "`temperature` must be a number"),
        (lambda: losses.distillation([0], LOGITS, TEACHER, 2.0, 1.5), "`alpha` must be in"),
        (lambda: losses.distillation(None, LOGITS, TEACHER), "`labels` must be given"),
        (lambda: losses.Distillation(alpha=0.5)(TEACHER, LOGITS), "must have shape"),
        (lambda: losses.ensemble_logits([]), "`teachers` is empty"),
        (lambda: losses.ensemble_logits([TEACHER], mean="median"), "`mean` must be one of"),
        (lambda: losses.ensemble_logits([TEACHER], weights=[1, 2]), "`weights` must be 1 numbers"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
