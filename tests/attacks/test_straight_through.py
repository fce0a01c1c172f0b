"""Straight-through gradients: same outputs, and a gradient where rounding hides it."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import LEGACY, keras

StraightThrough = kr.attacks.StraightThrough


def gradient_of(model, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(tf.cast(model(x), tf.float32)[:, 0])
    return tape.gradient(total, x)


@keras.saving.register_keras_serializable("keras_robust_tests")
class Rounding(keras.layers.Layer):
    """Sixteen levels of grey: a defence that hides the gradient and nothing else."""

    def call(self, inputs):
        return tf.round(inputs * 15.0) / 15.0


def rounded(model):
    inputs = keras.Input(model.input_shape[1:])
    return keras.Model(inputs, model(Rounding()(inputs)))


OPERATIONS = {
    "round": tf.round,
    "rint": tf.math.rint,
    "floor": tf.floor,
    "ceil": tf.math.ceil,
    "sign": tf.sign,
    "fake": lambda x: tf.quantization.fake_quant_with_min_max_args(x, -0.1, 0.1),
    "fake_vars": lambda x: tf.quantization.fake_quant_with_min_max_vars(x, -0.1, 0.1),
    "fake_channels": lambda x: tf.quantization.fake_quant_with_min_max_vars_per_channel(
        x, [-0.1, -0.1], [0.1, 0.1]
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_hiding_operation_passes_the_gradient(name):
    operation = OPERATIONS[name]
    x = tf.constant([[0.7, -1.3], [0.2, 2.9]])

    def model(x):
        return operation(2.0 * x) * [[3.0, 5.0]]

    plain = gradient_of(model, x)
    assert plain is None or not np.any(plain)
    passing = StraightThrough(model)
    np.testing.assert_allclose(gradient_of(passing, x), [[6.0, 0.0], [6.0, 0.0]])
    np.testing.assert_array_equal(passing(x), tf.function(model)(x))


def test_other_gradients_are_left_alone(cnn, blobs):
    model, (x, _) = cnn(), tf.nest.map_structure(tf.constant, blobs(6))
    np.testing.assert_allclose(
        gradient_of(StraightThrough(model), x), gradient_of(model, x), atol=1e-6
    )
    x = tf.constant([[0.4, 0.6]])
    assert gradient_of(lambda x: tf.round(x), x) is None  # and nothing stays registered


def test_outputs_are_the_models_bit_for_bit(cnn, blobs):
    model, (x, _) = rounded(cnn()), blobs(6)
    expected = tf.function(lambda x: model(x, training=False))(tf.constant(x))
    np.testing.assert_array_equal(StraightThrough(model)(x), expected)


def test_pgd_breaks_a_rounding_layer(cnn, blobs):
    body, (x, _) = cnn(), blobs(48)
    model = rounded(body)
    y = np.argmax(model(x), axis=1)
    attack = kr.attacks.PGD(0.2, steps=10)
    with pytest.raises(ValueError, match="`model` has no gradient"):
        attack(model, x, y)
    x_adv = attack(StraightThrough(model), x, y)
    fooled = np.mean(np.argmax(model(x_adv), axis=1) != y)
    open_body = np.mean(np.argmax(body(attack(body, x, y)), axis=1) != y)
    assert fooled > 0.9 * open_body > 0.3


def test_weights_are_read_when_called(cnn, blobs):
    model, (x, _) = rounded(cnn()), blobs(6)
    passing = StraightThrough(model)
    before = passing(x).numpy()
    model.set_weights([2.0 * weight for weight in model.get_weights()])
    assert not np.allclose(passing(x), before)
    np.testing.assert_allclose(passing(x), model(x), rtol=1e-5)


def test_batch_norm_and_dropout_rest(cnn, blobs):
    model, (x, _) = cnn(batch_norm=True), blobs(6)
    before = [weight.copy() for weight in model.get_weights()]
    np.testing.assert_allclose(StraightThrough(model)(x), model(x, training=False), atol=1e-6)
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)


def test_attacked_wrappers_are_not_kept_alive(cnn, blobs):
    (x, y), wrapper = blobs(6), StraightThrough(cnn())
    kr.attacks.FGSM(0.1)(wrapper, x, y)
    reference = weakref.ref(wrapper)
    del wrapper
    gc.collect()
    assert reference() is None


@pytest.mark.skipif(not LEGACY, reason="TensorFlow Model Optimization needs tf_keras")
def test_quantization_aware_models_pass_where_they_clip(rng):
    tfmot = pytest.importorskip("tensorflow_model_optimization")
    layers = keras.layers
    # Seeded: by chance a logit lies in the small range, and is not clipped.
    dense = layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(seed=0))
    body = keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), dense])
    model = tfmot.quantization.keras.quantize_model(body)
    x = rng.uniform(size=(16, 4, 4, 1)).astype("float32")
    # The output's range is too small: every logit is clipped.
    ranges = {"quantize_layer_max": 1.0, "activation_min": -0.001, "activation_max": 0.001}
    for variable in model.variables:
        for ending, value in ranges.items():
            if variable.name.endswith(f"{ending}:0"):
                variable.assign(value)
    x = tf.constant(x)
    assert not np.any(gradient_of(model, x))
    passing = StraightThrough(model)
    assert np.all(np.any(gradient_of(passing, x) != 0, axis=(1, 2, 3)))
    np.testing.assert_array_equal(passing(x), tf.function(model)(x))


def test_what_is_no_logit_model_is_refused(cnn):
    with pytest.raises(TypeError, match="`model` must be a Keras model or a callable"):
        StraightThrough("model.keras")
    with pytest.raises(ValueError, match="`model` ends in a softmax"):
        StraightThrough(keras.Sequential([cnn(), keras.layers.Softmax()]))
