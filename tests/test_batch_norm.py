"""Statistics measured anew are the plain means over the batches, and nothing else moves."""

import numpy as np
import pytest
import tensorflow as tf

from keras_robust._batch_norm import check_batch_norm, fused_batch_norm, measure_batch_norm
from keras_robust._keras import LEGACY, keras

X = np.random.default_rng(0).normal(2.0, 3.0, size=(24, 4)).astype("float32")


def test_statistics_are_means_over_the_batches():
    """Of two layers, one in a nested model; the second sees the first's outputs in training."""
    inner = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(name="second")])
    layers = [keras.layers.BatchNormalization(name="first"), keras.layers.Dropout(0.5, seed=0)]
    model = keras.Sequential([keras.Input((4,)), *layers, inner])
    first, second = layers[0], inner.get_layer("second")
    statistics = {id(v) for norm in (first, second) for v in norm.non_trainable_variables}
    others = [v for v in model.variables if id(v) not in statistics]
    before = [np.asarray(v) for v in others]

    measure_batch_norm(model, tf.data.Dataset.from_tensor_slices((X, X[:, 0])).batch(8))

    parts = X.reshape(3, 8, 4).astype("float64")
    np.testing.assert_allclose(first.moving_mean, parts.mean(1).mean(0), rtol=1e-5)
    np.testing.assert_allclose(first.moving_variance, parts.var(1).mean(0), rtol=1e-5)
    # Dropout doubles what it keeps of a normalized batch: variance 2.
    assert 1.2 < np.mean(second.moving_variance) < 2.8
    for old, variable in zip(before, others):
        np.testing.assert_array_equal(old, variable)
    assert first.momentum == second.momentum == 0.99


def test_momentum_comes_back_after_an_error():
    layer = keras.layers.BatchNormalization()
    model = keras.Sequential([keras.Input((4,)), layer])

    def broken():
        yield X[:8]
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        measure_batch_norm(model, broken())
    assert layer.momentum == 0.99


def test_anything_but_a_dataset_is_refused():
    check_batch_norm(None)
    with pytest.raises(ValueError, match="`batch_norm` must be a tf.data.Dataset.*ndarray"):
        check_batch_norm(X)


@pytest.mark.parametrize("channels", [16, 4])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fused_is_the_closed_form_with_its_gradients(dtype, channels):
    rng = np.random.default_rng(0)
    layer = keras.layers.BatchNormalization(epsilon=0.01)
    layer.build((None, 5, 5, channels))
    layer.set_weights([rng.uniform(0.5, 2.0, channels) for _ in range(4)])
    gamma, beta, mean, variance = (np.float64(weight) for weight in layer.get_weights())
    x = tf.cast(tf.constant(rng.normal(size=(3, 5, 5, channels))), dtype)
    upstream = tf.cast(tf.constant(rng.normal(size=x.shape)), dtype)
    wide, up = np.float64(tf.cast(x, "float32")), np.float64(tf.cast(upstream, "float32"))

    trained = [v if isinstance(v, tf.Variable) else v.value for v in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = fused_batch_norm(x, layer)
    found = [value, *tape.gradient(value, [x, *trained], upstream)]

    slope = gamma / np.sqrt(variance + 0.01)
    normal = (wide - mean) / np.sqrt(variance + 0.01)
    sums = (0, 1, 2)
    exact = [gamma * normal + beta, up * slope, (up * normal).sum(sums), up.sum(sums)]
    rounding = 1e-5 if dtype == "float32" else 1e-2
    for ours, expected in zip(found, exact, strict=True):
        ours = tf.cast(ours, "float32")
        np.testing.assert_allclose(ours, expected, atol=rounding * np.abs(expected).max())


def test_a_layer_that_is_called_twice_has_its_mean_over_both_calls():
    shared = keras.layers.BatchNormalization()
    inputs = keras.Input((4,))
    once = shared(inputs)
    model = keras.Model(inputs, [once, shared(keras.layers.Rescaling(2.0, 1.0)(inputs))])
    measure_batch_norm(model, tf.data.Dataset.from_tensor_slices(X).batch(8))
    parts = X.reshape(3, 8, 4).astype("float64")
    both = np.concatenate([parts, 2 * parts + 1])
    np.testing.assert_allclose(shared.moving_mean, both.mean(1).mean(0), rtol=1e-5)
    np.testing.assert_allclose(shared.moving_variance, both.var(1).mean(0), rtol=1e-5)
    assert shared.momentum == 0.99 and "call" not in vars(shared)


@pytest.mark.skipif(not LEGACY, reason="a class of tf_keras")
@pytest.mark.filterwarnings("ignore")
def test_synchronized_statistics_are_measured_too():
    layer = keras.layers.experimental.SyncBatchNormalization()
    model = keras.Sequential([keras.Input((4,)), layer])
    measure_batch_norm(model, tf.data.Dataset.from_tensor_slices(X).batch(8))
    np.testing.assert_allclose(layer.moving_mean, X.mean(0), rtol=1e-5)
    assert layer.momentum == 0.99
