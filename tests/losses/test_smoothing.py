"""Label smoothing: by hand, as Keras does it for one-hot labels, and through `compile`."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.losses import LabelSmoothing, smooth

LOGITS = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
LABELS = np.array([0, 2, 1, 0])


def test_smooth_by_hand():
    np.testing.assert_allclose(smooth([1], 4, 0.2), [[0.05, 0.85, 0.05, 0.05]], rtol=1e-6)
    np.testing.assert_allclose(smooth([[0, 1]], 2, 0.2), [[0.1, 0.9]], rtol=1e-6)
    soft = tf.constant([[0.5, 0.5, 0.0]])
    np.testing.assert_allclose(smooth(soft, 3, 0.3), [[0.45, 0.45, 0.1]], rtol=1e-6)


@pytest.mark.parametrize("labels", [LABELS, LABELS[:, None], np.eye(3, dtype="float32")[LABELS]])
def test_agrees_with_keras(labels):
    theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    expected = float(theirs(np.eye(3)[LABELS], LOGITS))
    got = LabelSmoothing(0.1)(tf.constant(labels), tf.constant(LOGITS))
    np.testing.assert_allclose(float(got), expected, rtol=1e-6)


def test_survives_its_config():
    twin = LabelSmoothing.from_config(LabelSmoothing(0.2, name="mine").get_config())
    assert (twin.smoothing, twin.name) == (0.2, "mine")


def test_trains(cnn, blobs):
    x, y = blobs(32)
    trainer = kr.AdversarialTraining(cnn(), kr.attacks.FGSM(0.0))
    trainer.compile(keras.optimizers.SGD(0.0), LabelSmoothing(0.1))
    loss = trainer.fit(x, y, batch_size=32, verbose=0).history["loss"][0]
    expected = kr.losses.cross_entropy(smooth(y, 3, 0.1), trainer.model(x))
    np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-5)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_out_of_range_is_refused(smoothing):
    with pytest.raises(ValueError, match=r"`smoothing` must be in \[0, 1\), got smoothing="):
        LabelSmoothing(smoothing)
