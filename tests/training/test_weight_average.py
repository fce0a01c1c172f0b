"""The weight average: closed forms, both validations, BatchNorm, resumption."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.training import WeightAverage


class Recorder(keras.callbacks.Callback):
    """The weights after each step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(self.model.model.get_weights())


def fit(model, data, *callbacks, epochs=3, **settings):
    trainer = kr.AdversarialTraining(model, kr.attacks.FGSM(0.1))
    trainer.compile(keras.optimizers.SGD(0.5), metrics=["accuracy"])
    trainer.logs = trainer.fit(
        data, epochs=epochs, callbacks=list(callbacks), verbose=0, **settings
    ).history
    return trainer


@pytest.fixture
def data(blobs):
    return tf.data.Dataset.from_tensor_slices(blobs(48)).batch(16)


def averaged(model, average):
    with average.applied():
        return model.get_weights()


def test_moving_average_by_hand(cnn, data):
    model, recorder, average = cnn(), Recorder(), WeightAverage(decay=0.6)
    fit(model, data, recorder, average)
    expected = recorder.seen[0]
    for number, weights in enumerate(recorder.seen[1:], 1):
        decay = min(0.6, (1 + number) / (10 + number))
        expected = [decay * a + (1 - decay) * w for a, w in zip(expected, weights)]
    for a, b in zip(averaged(model, average), expected):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for a, b in zip(model.get_weights(), recorder.seen[-1]):
        np.testing.assert_array_equal(a, b)


def test_mean_of_the_epochs_from_a_start(cnn, data):
    model, recorder = cnn(batch_norm=True), Recorder()
    average = WeightAverage(decay=None, start=1)
    fit(model, data, recorder, average)
    ends = recorder.seen[5], recorder.seen[8]
    for a, *parts in zip(averaged(model, average), *ends):
        np.testing.assert_allclose(a, np.mean(parts, axis=0), atol=1e-6)


def test_logs_the_validation_of_both_and_changes_nothing(cnn, blobs, data):
    x, y = blobs(24, seed=1)
    watched, alone, average = cnn(), cnn(), WeightAverage((x, y), decay=0.9)
    trainer = fit(watched, data, average, validation_data=(x, y))
    fit(alone, data)
    for a, b in zip(watched.get_weights(), alone.get_weights()):
        np.testing.assert_array_equal(a, b)
    names = {"loss", "accuracy", "robust_accuracy"}
    kinds = ("", "val_", "val_average_")
    assert set(trainer.logs) == {kind + name for kind in kinds for name in names}
    with average.applied():
        expected = trainer.evaluate(x, y, verbose=0, return_dict=True)
    for name, value in expected.items():
        np.testing.assert_allclose(trainer.logs[f"val_average_{name}"][-1], value, rtol=1e-5)


def test_batch_norm_is_measured_at_the_average(cnn, data):
    """The plain mean over batches of what the layer sees; momentum and weights as before."""
    model, images = cnn(batch_norm=True), data.map(lambda x, y: x)
    average = WeightAverage(decay=0.9, batch_norm=images)
    fit(model, data, average)
    before = model.get_weights()
    norm = next(x for x in model.layers if isinstance(x, keras.layers.BatchNormalization))
    with average.applied():
        seen = [model.layers[1](batch).numpy() for batch in images]
        mean = np.mean([part.mean(axis=(0, 1, 2)) for part in seen], axis=0)
        np.testing.assert_allclose(norm.moving_mean, mean, atol=1e-5)
    assert norm.momentum == 0.99
    for a, b in zip(before, model.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_keeps_the_average_for_good(cnn, data):
    model, average = cnn(), WeightAverage(decay=0.9)
    fit(model, data, average)
    expected = averaged(model, average)
    average.keep()
    for a, b in zip(model.get_weights(), expected):
        np.testing.assert_array_equal(a, b)


def test_until_an_epoch_counts_there_is_none(cnn, blobs, data):
    """The model's own weights stand for it, and it cannot be kept."""
    model, average = cnn(), WeightAverage(blobs(48), start=5)
    logs = fit(model, data, average, epochs=2, validation_data=blobs(48)).logs
    assert logs["val_average_accuracy"] == logs["val_accuracy"]
    trained = model.get_weights()
    for a, b in zip(averaged(model, average), trained):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="`fit` ended before epoch start=5 had counted"):
        average.keep()
    for a, b in zip(model.get_weights(), trained):
        np.testing.assert_array_equal(a, b)


def test_statistics_that_cannot_be_measured_leave_the_model_alone(cnn, data):
    wrong = tf.data.Dataset.from_tensors(np.zeros((4, 7, 9, 1), "float32"))
    model, average = cnn(batch_norm=True), WeightAverage(decay=0.5, batch_norm=wrong)
    fit(model, data, average)
    before = model.get_weights()
    with pytest.raises(Exception, match="shape|incompatible"), average.applied():
        pass
    for a, b in zip(model.get_weights(), before):
        np.testing.assert_array_equal(a, b)


def test_averages_a_plain_keras_model_too(cnn, blobs):
    (x, y), model = blobs(48), cnn()
    average = WeightAverage((x, y), decay=None)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    logs = model.fit(x, y, callbacks=[average], verbose=0).history
    assert set(logs) == {"loss", "val_average_loss"}


def test_resumes_to_the_same_average(cnn, data, tmp_path):
    results = []
    for folder, parts in (("whole", [3]), ("parts", [1, 3])):
        model = cnn()
        for epochs in parts:
            average = WeightAverage(decay=0.9)
            fit(model, data, average, epochs=epochs, resume=tmp_path / folder)
        results.append(averaged(model, average))
    for a, b in zip(*results):
        np.testing.assert_array_equal(a, b)


def test_another_model_is_refused(cnn, data, tmp_path):
    average = WeightAverage(decay=0.9)
    first = cnn()
    fit(first, data, average)
    fit(first, data, average)
    for settings in ({}, {"resume": tmp_path}):
        with pytest.raises(ValueError, match="WeightAverage holds variables of another model"):
            fit(cnn(), data, average, **settings)


def test_wrong_settings_are_refused():
    for decay in (1.0, "a"):
        with pytest.raises(ValueError, match=r"`decay` must be a number in \[0, 1\) .*or None"):
            WeightAverage(decay=decay)
    with pytest.raises(ValueError, match="`start` must be an epoch's number >= 0, got start=-1"):
        WeightAverage(start=-1)
    with pytest.raises(ValueError, match="`batch_norm` must be a tf.data.Dataset"):
        WeightAverage(batch_norm=np.zeros((2, 2)))
    with pytest.raises(ValueError, match="There is no average yet"):
        WeightAverage().keep()
