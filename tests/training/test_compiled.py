"""Labels and the loss they are compiled with: one-hot or numbers, and the fix where they differ."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras

NUMBERS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
VECTORS = keras.losses.CategoricalCrossentropy(from_logits=True)
FOCAL = keras.losses.CategoricalFocalCrossentropy(from_logits=True)


def trainer(cnn, loss):
    made = kr.AdversarialTraining(cnn(), kr.attacks.FGSM(0.1))
    made.compile("sgd", loss)
    return made


@pytest.mark.parametrize(
    ("loss", "one_hot", "fix"),
    [
        (None, True, "takes class numbers .batch,., but `x` has labels of shape .96, 3.. "),
        (NUMBERS, True, "Compile with loss=keras.losses.CategoricalCrossentropy.from_logits=True."),
        (VECTORS, False, "takes label vectors .* or give one-hot labels, tf.one_hot"),
        (FOCAL, False, "`loss` is a CategoricalFocalCrossentropy.*loss=keras.losses.Sparse"),
    ],
)
def test_labels_of_the_other_form_are_refused_before_training(cnn, blobs, loss, one_hot, fix):
    (x, y), made = blobs(), trainer(cnn, loss)
    before = made.model.get_weights()
    y = np.eye(3, dtype="float32")[y] if one_hot else y[:, None]
    for give in (made.fit, made.evaluate):
        for arguments in ((x, y), (tf.data.Dataset.from_tensors((x, y)),)):
            with pytest.raises(ValueError, match=fix):
                give(*arguments, verbose=0)
    for old, new in zip(before, made.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_validation_labels_of_the_other_form_are_refused(cnn, blobs):
    (x, y), made = blobs(), trainer(cnn, NUMBERS)
    with pytest.raises(ValueError, match="but `validation_data` has labels of shape"):
        made.fit(x, y, validation_data=(x, np.eye(3)[y]), verbose=0)


@pytest.mark.parametrize(
    ("loss", "y"),
    [
        (NUMBERS, lambda y: y[:, None]),
        (VECTORS, lambda y: np.eye(3, dtype="float32")[y]),
        (kr.losses.LabelSmoothing(0.1), lambda y: y),
        ("mse", lambda y: np.eye(3, dtype="float32")[y]),
    ],
)
def test_labels_that_fit_are_taken(cnn, blobs, loss, y):
    x, numbers = blobs(32)
    assert trainer(cnn, loss).fit(x, y(numbers), verbose=0).history["loss"]
