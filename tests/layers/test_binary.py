"""Binary weights: how they are drawn, what the real ones learn, and when they are the same."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.layers import BinaryDense, sampled_logits
from keras_robust.layers._binary import binarise, glorot
from keras_robust.training._resolved import resolved_weights

INPUTS, UNITS = 6, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, INPUTS))
# Beyond what binary weights reach: then the real ones saturate instead of trembling around zero,
# where a rounding error decides the sign.
Y = 2 * X @ np.sign(RNG.normal(size=(INPUTS, UNITS)))


def dense(stochastic=False, dtype="float32", **settings):
    layer = BinaryDense(
        UNITS, use_bias=False, stochastic=stochastic, dtype=dtype, name="b", **settings
    )
    layer.build((None, INPUTS))
    return layer


REAL = arrays.arrays(np.float32, 12, elements=st.floats(-1, 1, width=32, allow_subnormal=False))
DRAWS = arrays.arrays(np.float32, 12, elements=st.floats(0.0078125, 0.9921875, width=32))


@settings(max_examples=25, deadline=None)
@given(REAL, DRAWS)
def test_binary_weights_are_never_zero(real, draws):
    sign = binarise(real).numpy()
    np.testing.assert_array_equal(sign, np.where(real >= 0, 1.0, -1.0))
    np.testing.assert_array_equal(binarise(sign), sign)
    drawn = binarise(real, draws).numpy()
    assert set(np.unique(drawn)) <= {-1.0, 1.0}
    far = np.abs(real - (2 * draws - 1)) > 1e-6
    np.testing.assert_array_equal(drawn[far], np.sign(real - (2 * draws - 1))[far])


def test_zero_and_minus_zero_are_plus_one():
    assert binarise([0.0, -0.0]).numpy().tolist() == [1.0, 1.0]


def test_draws_have_the_chance_of_the_hard_sigmoid():
    real, count = np.array([-1.0, -0.5, 0.0, 0.3, 1.0], "float32"), 4000
    layer = BinaryDense(count, stochastic=True, use_bias=False, name="many")
    layer.build((None, 5))
    layer.latent.assign(np.repeat(real[:, None], count, 1) / layer.slope)
    with layer.resolve_once():
        ups = np.sum(layer(np.eye(5, dtype="float32"), training=True) > 0, axis=1)
    chance = (real + 1) / 2
    # Five standard deviations of the binomial: none at chances of 0 and 1.
    assert np.all(np.abs(ups - count * chance) <= 5 * np.sqrt(count * chance * (1 - chance)))


def trained(layer, optimizer, steps):
    x, y = tf.constant(X, layer.latent.dtype), tf.constant(Y, layer.latent.dtype)
    optimizer.build([layer.latent])

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(layer(x, training=True) - y))
        optimizer.apply_gradients([(tape.gradient(loss, layer.latent), layer.latent)])

    for _ in range(steps):
        step()
    return layer.real.numpy()


def by_the_authors(layer, start, steps, rule):
    """Their loop in float64: binarise, gradient there, rule, times the scale, clip."""
    real, state = start.astype(float), {}
    for number in range(steps):
        level = 2 * layer._draws(number).numpy() - 1 if layer.stochastic else 0.0
        binary = np.where(real >= level, 1.0, -1.0)
        gradient = 2 * X.T @ (X @ binary - Y) / Y.size
        real = np.clip(real + rule(gradient, number + 1, state), -1, 1)
    return real


# Keras keeps an optimizer's numbers in float32, which holds these exactly.
BETA_1, BETA_2, RATE = 1 - 2**-3, 1 - 2**-10, 2**-10


def adam(scale, rate):
    def rule(gradient, number, state):
        state["m"] = BETA_1 * state.get("m", 0) + (1 - BETA_1) * gradient
        state["v"] = BETA_2 * state.get("v", 0) + (1 - BETA_2) * gradient**2
        rate_now = rate * np.sqrt(1 - BETA_2**number) / (1 - BETA_1**number)
        return -scale * rate_now * state["m"] / (np.sqrt(state["v"]) + 1e-8)

    return rule


def test_adam_moves_the_real_weights_as_the_authors_scaled_rule():
    layer = dense(dtype="float64")
    start = layer.real.numpy()
    expected = by_the_authors(layer, start, 400, adam(1 / glorot(INPUTS, UNITS), RATE))
    optimizer = keras.optimizers.Adam(RATE, BETA_1, BETA_2, epsilon=1e-8)
    found = trained(layer, optimizer, 400)
    assert np.abs(found - start).max() > 0.1 and np.abs(found).min() < 0.9
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("stochastic", [False, True])
def test_sgd_moves_them_by_the_squared_scale(stochastic):
    layer, scale = dense(stochastic, dtype="float64"), 1 / glorot(INPUTS, UNITS)
    start = layer.real.numpy()
    expected = by_the_authors(layer, start, 60, lambda g, number, state: -(scale**2) * 2 * RATE * g)
    found = trained(layer, keras.optimizers.SGD(2 * RATE), 60)
    assert np.abs(found - start).max() > 0.1 and np.abs(found).min() < 0.9
    np.testing.assert_allclose(found, expected, atol=1e-12, rtol=0)


def test_a_number_scales_the_learning_rate():
    """The real weights move by its square; 1 trains them as they are."""
    moved = {}
    for scale in (1.0, 2.0):
        layer = dense(dtype="float64", learning_rate_scale=scale)
        start = layer.real.numpy()
        layer.latent.assign(0.5 * start / scale)  # Away from the clip.
        moved[scale] = trained(layer, keras.optimizers.SGD(RATE), 1) - 0.5 * start
        binary = np.where(start >= 0, 1.0, -1.0)
        gradient = 2 * X.T @ (X @ binary - Y) / Y.size
        np.testing.assert_allclose(moved[scale], -(scale**2) * RATE * gradient, atol=1e-12)
    np.testing.assert_allclose(moved[2.0], 4 * moved[1.0], atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 0.25, "glorot"])
def test_gradient_goes_straight_through_also_beyond_the_clip(scale):
    layer = dense(scale=scale)
    layer.latent.assign(layer.limit * RNG.uniform(-2, 2, (INPUTS, UNITS)))
    x = tf.constant(X, tf.float32)
    plain = tf.constant(layer.kernel)
    np.testing.assert_allclose(np.abs(plain), layer.magnitude, rtol=1e-6)
    with tf.GradientTape() as tape:
        tape.watch(plain)
        expected = tf.reduce_sum(tf.square(tf.matmul(x, plain)))
    expected = layer.slope * tape.gradient(expected, plain)
    for training in (True, False):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(layer(x, training=training)))
        np.testing.assert_allclose(tape.gradient(loss, layer.latent), expected, rtol=1e-5)


def test_the_real_weights_are_clipped_after_the_step():
    layer = dense(scale=0.5)
    real = trained(layer, keras.optimizers.SGD(10.0), 3)
    assert np.abs(real).max() == pytest.approx(0.5)
    assert np.abs(layer.latent.numpy()).max() <= np.float32(layer.limit)


def net(**options):
    layers = [
        kr.layers.BinaryConv2D(3, 3, name="conv", **options),
        keras.layers.ReLU(),
        keras.layers.Flatten(),
        BinaryDense(3, name="logits", **options),
    ]
    return keras.Sequential([keras.Input((6, 6, 1)), *layers])


def test_one_draw_serves_the_whole_step(blobs):
    x, _ = blobs(8)
    model = net(stochastic=True)
    at_rest = model(x).numpy()
    outputs = []
    for _ in range(2):
        with resolved_weights(model):
            calls = [model(x, training=training) for training in (False, True, True, False)]
        for call in calls[1:]:
            np.testing.assert_array_equal(call, calls[0])
        outputs.append(calls[0])
    assert np.abs(outputs[0] - outputs[1]).max() > 0
    assert [int(layer._count) for layer in model.layers if hasattr(layer, "latent")] == [2, 2]
    np.testing.assert_array_equal(model(x), at_rest)
    first, second = model.layers[0]._draws(0), net(stochastic=True).layers[0]._draws(0)
    np.testing.assert_array_equal(first, second)
    # Layers of one seed and shape draw apart.
    other = dense(), BinaryDense(UNITS, name="c")
    other[1].build((None, INPUTS))
    assert np.abs(other[0].latent.numpy() - other[1].latent.numpy()).max() > 0.1


def test_adversarial_training_draws_once_a_step(blobs):
    x, y = blobs(48)
    layer = BinaryDense(3, stochastic=True, name="b")
    model = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten(), layer])
    start = layer.latent.numpy()
    # A pass of the attack and two of the objective in each step.
    attack = kr.attacks.PGD(eps=0.1, steps=1)
    trainer = kr.AdversarialTraining(model, attack, kr.objectives.TRADES(1.0))
    trainer.compile(keras.optimizers.Adam(0.01), kr.losses.SquaredHinge(), jit_compile=True)
    logs = trainer.fit(x, y, batch_size=16, epochs=2, verbose=0).history
    assert np.isfinite(logs["loss"]).all() and int(layer._count) == 6
    assert np.abs(layer.latent.numpy() - start).max() > 1e-3


def test_xla_draws_alike():
    def call(layer):
        return layer(tf.eye(INPUTS), training=True)

    compiled = tf.function(call, jit_compile=True)
    one, other = dense(stochastic=True), dense(stochastic=True)
    for _ in range(2):
        np.testing.assert_array_equal(call(one), compiled(other))


def test_fit_draws_once_a_batch_and_a_frozen_layer_rests(blobs):
    x, y = blobs(16)
    model = net(stochastic=True)
    model.layers[0].trainable = False
    model.compile("sgd", kr.losses.SquaredHinge())
    model.fit(x, y, batch_size=8, verbose=0)
    assert [int(model.get_layer(name)._count) for name in ("conv", "logits")] == [0, 2]


def test_training_may_be_a_tensor():
    layer = dense(stochastic=True, test_weights="real")
    x = tf.eye(INPUTS)
    call = tf.function(lambda training: layer(x, training=training))
    drawn = call(tf.constant(True))
    np.testing.assert_array_equal(np.abs(drawn), np.ones((INPUTS, UNITS)))
    np.testing.assert_allclose(call(tf.constant(False)), layer.real, rtol=1e-6)
    assert int(layer._count) == 1


def test_weights_of_inference():
    layer = dense(stochastic=True, test_weights="sampled")
    x = np.eye(INPUTS, dtype="float32")
    fixed = layer(x).numpy()
    np.testing.assert_array_equal(fixed, layer(x))
    np.testing.assert_array_equal(fixed, layer.weights_as("sampled"))
    assert set(np.unique(fixed)) == {-1.0, 1.0}
    np.testing.assert_array_equal(layer.weights_as("binary"), np.sign(layer.real))
    twin = dense(test_weights="real")
    np.testing.assert_allclose(twin(x), twin.real, rtol=1e-6)
    with pytest.raises(ValueError, match="`kind` must be one of"):
        layer.weights_as("ternary")


def test_the_mean_over_samples_is_what_the_real_weights_give():
    model = keras.Sequential([keras.Input((INPUTS,)), BinaryDense(UNITS, name="b")])
    x, samples = np.eye(INPUTS, dtype="float32"), 60
    found = sampled_logits(model, x, samples, seed=3).numpy()
    real = model.layers[0].real.numpy()
    assert np.all(np.abs(found - real) <= 5 * np.sqrt((1 - real**2) / samples))
    few = [sampled_logits(model, x, 2, seed=seed) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(few[0], few[1])
    assert np.abs(few[0] - few[2]).max() > 0
    # Saturated weights leave nothing to draw.
    layer = model.layers[0]
    layer.latent.assign(layer.limit * np.sign(real))
    np.testing.assert_array_equal(sampled_logits(model, x, 3), model(x))


def test_an_attack_climbs_the_ensemble(blobs):
    x, y = blobs(6)
    layer = BinaryDense(3, stochastic=True, name="b")
    model = keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten(), layer])
    attack = kr.attacks.FGSM(0.1)
    x_adv = attack(lambda z: sampled_logits(model, z, 2), x, y)
    loss = [kr.losses.cross_entropy(y, sampled_logits(model, z, 2)) for z in (x, x_adv)]
    assert np.mean(loss[1]) > np.mean(loss[0])


def test_sampled_logits_refuses_what_it_cannot_sample(cnn):
    with pytest.raises(TypeError, match="`model` must be a Keras model, got function"):
        sampled_logits(lambda x: x, X)
    with pytest.raises(ValueError, match="has no binary layer to sample"):
        sampled_logits(cnn(), X)
    with pytest.raises(ValueError, match="`samples` must be a whole number >= 1, got 0"):
        sampled_logits(net(), X, 0)
