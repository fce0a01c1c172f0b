import numpy as np
import pytest
import tensorflow as tf

from keras_robust._keras import LEGACY, keras
from keras_robust.evaluation._artifacts import open_artifact
from keras_robust.evaluation._gradients import look_at_gradients

X = np.linspace(0.1, 0.9, 24, dtype=np.float32).reshape(8, 3)


def model(x):
    return tf.stack([x[:, 0] - x[:, 1], 2 * x[:, 2], x[:, 1]], -1)


def rounded(x):
    return model(tf.round(x * 8) / 8)


def looked(value):
    return look_at_gradients(open_artifact("m", value, "m"), X)


def test_a_smooth_model_needs_no_straight_through_version():
    artifact = looked(model)
    assert artifact.gradient_model is model and artifact.straight_through is None
    assert artifact.no_gradient == 0.0


def test_a_rounding_model_gets_one_that_has_the_gradient_of_its_inside():
    artifact = looked(rounded)
    assert artifact.no_gradient == 1.0 and artifact.straight_through is not None
    batch = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(batch)
        logits = artifact.straight_through(batch)
    np.testing.assert_allclose(logits, rounded(X))
    np.testing.assert_allclose(
        tape.gradient(logits, batch), np.tile([1.0, 0.0, 2.0], (8, 1)), atol=1e-6
    )


def test_rounding_inside_a_keras_model_and_a_saved_model(saved_model):
    network = keras.Sequential(
        [keras.Input((3,)), keras.layers.Lambda(lambda x: tf.round(x * 8) / 8),
         keras.layers.Dense(2)]
    )  # fmt: skip
    assert looked(network).straight_through is not None
    folder = look_at_gradients(open_artifact("m", saved_model(rounded, 3), "m"), X)
    assert folder.no_gradient == 1.0


def test_zero_gradients_are_counted_by_image():
    def saturated(x):
        return 5.0 * tf.nn.relu(model(x) - tf.constant([[0.0, 1.0, 9.0]]))

    # The margin of an image has a gradient where one of its first two logits is above zero.
    logits = saturated(X).numpy()
    assert 0 < (logits.max(1) == 0).sum() < len(X)
    assert looked(saturated).no_gradient == (logits.max(1) == 0).mean()


def test_what_no_gradient_passes_through_has_none():
    for blind in (
        lambda x: tf.numpy_function(lambda x: model(x).numpy(), [x], tf.float32),
        lambda x: model(tf.zeros_like(x)) + tf.stop_gradient(model(x)),
    ):
        artifact = open_artifact("m", blind, "m")
        found = look_at_gradients(artifact, X)
        assert found.gradient_model is None or found.no_gradient == 1.0


@pytest.mark.skipif(not LEGACY, reason="TF-MOT needs tf_keras")
def test_a_fake_quantized_model_gets_one(cnn, blobs):
    from keras_robust.compress._tfmot import tfmot as load

    tfmot = load()
    x, _ = blobs(12)
    quantized = tfmot.quantization.keras.quantize_model(cnn())
    quantized.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    quantized.fit(x, np.arange(12) % 3, verbose=0)
    # Where fake quantization clips, its own gradient is zero: at inputs beyond what it saw.
    artifact = look_at_gradients(open_artifact("m", quantized, "m"), np.clip(3 * x, 0, 1))
    assert artifact.gradient_model is quantized
