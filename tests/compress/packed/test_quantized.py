"""A fake-quantized model packs its int8 values, and computes the same from them."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import LEGACY, keras

pytestmark = pytest.mark.skipif(not LEGACY, reason="Quantize needs tf_keras")


@pytest.fixture(scope="module")
def quantized():
    from keras_robust.compress._flatten import flatten
    from keras_robust.compress._stage import Context

    layers = keras.layers
    keras.utils.set_random_seed(2)
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(12, 3, activation="relu")(inputs)
    x = layers.Conv2D(12, 3)(x)
    x = layers.ReLU()(x)
    plain = keras.Model(inputs, layers.Dense(10, name="end")(layers.Flatten()(x)))
    images = tf.random.stateless_uniform((64, 8, 8, 1), (1, 2))
    context = Context(1, 1, tf.data.Dataset.from_tensor_slices(images).batch(32))
    stage = kr.compress.Quantize("int8")
    model = flatten(plain)
    return stage.strip(stage.wrap(model, context), model), images


def test_outputs_are_bit_identical_at_a_byte_a_weight(quantized, tmp_path):
    model, images = quantized
    kernels = sum(w.shape.num_elements() for w in model.weights if w.shape.rank > 1)
    size = kr.compress.pack(model, tmp_path / "m.krz")
    twin = kr.compress.unpack(tmp_path / "m.krz")
    np.testing.assert_array_equal(twin(images).numpy(), model(images).numpy())
    # At most the int8 values, and what else there is: ranges, biases, the architecture.
    assert size < kernels + 3000
    again = tmp_path / "again.krz"
    assert kr.compress.pack(twin, again) == size
    report = kr.compress.size_report(tmp_path / "m.krz")
    ends = [row for row in report.weights if "end" in row["layer"] and row["parameters"] == 1920]
    assert ends[0]["distinct"] <= 255
