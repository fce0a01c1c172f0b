"""Several attacks in validation: each one's share, and what withstands them all."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.attacks import FGSM, PGD

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def dataset(x, y, batch=32):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch)


def brightened(model, x, y, seed=0):
    return tf.clip_by_value(x + 0.2, 0.0, 1.0)


def trainer_of(model, **settings):
    trainer = kr.AdversarialTraining(model, FGSM(0.15), **settings)
    trainer.compile("sgd", LOSS, metrics=["accuracy"])
    return trainer


def withstands(model, x, y, *attacks):
    right = np.argmax(model(x), 1) == y
    for attack in attacks:
        right &= np.argmax(model(attack(model, x, y)), 1) == y
    return right.mean()


# Neither contains the other: each finds examples where the other fails.
A, B = FGSM(0.05), FGSM(0.25, norm="l2")


def test_each_attack_beside_the_worst_of_all(cnn, blobs):
    (x, y), model = blobs(), cnn()
    trainer = trainer_of(model, validation_attack={"a": A, "b": B})
    fitted = trainer.fit(dataset(x, y), validation_data=dataset(x, y, 40), epochs=2, verbose=0)
    history = {name: values[-1] for name, values in fitted.history.items()}
    alone = [withstands(model, x, y, attack) for attack in (A, B)]
    both = withstands(model, x, y, A, B)
    np.testing.assert_allclose(history["val_robust_accuracy_a"], alone[0], atol=1e-6)
    np.testing.assert_allclose(history["val_robust_accuracy_b"], alone[1], atol=1e-6)
    np.testing.assert_allclose(history["val_robust_accuracy"], both, atol=1e-6)
    assert both < min(alone)  # Else this could not tell the worst from one of the two.


def test_training_says_nothing_in_their_names(cnn, blobs):
    (x, y), model = blobs(), cnn()
    trainer = trainer_of(model, validation_attack={"a": A, "b": B})
    history = trainer.fit(x, y, validation_data=(x, y), epochs=2, verbose=0).history
    own = {"loss", "accuracy", "robust_accuracy"}
    validation = own | {"robust_accuracy_a", "robust_accuracy_b"}
    assert set(history) == own | {f"val_{name}" for name in validation}
    assert np.isfinite([*history.values()]).all()
    assert not (validation - own) & {metric.name for metric in trainer.metrics}


PARTS = (slice(0, 8), slice(8, 20), slice(0, 8))


def test_counts_start_anew_with_each_evaluation(cnn, blobs):
    (x, y), model = blobs(), cnn()
    trainer = trainer_of(model, validation_attack={"a": A})
    logs = [trainer.evaluate(x[part], y[part], verbose=0, return_dict=True) for part in PARTS]
    for part, log in zip(PARTS, logs):
        expected = withstands(model, x[part], y[part], A)
        assert log["robust_accuracy_a"] == pytest.approx(expected, abs=1e-6)


def test_names_are_there_after_a_single_batch_was_tested(cnn, blobs):
    (x, y), trainer = blobs(), trainer_of(cnn(), validation_attack={"a": A})
    trainer.test_on_batch(x[:8], y[:8])
    logs = trainer.evaluate(x[:8], y[:8], verbose=0, return_dict=True)
    assert set(logs) == {"loss", "accuracy", "robust_accuracy", "robust_accuracy_a"}


def test_one_name_is_the_attack_alone(cnn, blobs):
    (x, y), model = blobs(), cnn()
    attack = PGD(0.15, steps=3)
    logs = [
        trainer_of(model, validation_attack=given).evaluate(x, y, verbose=0, return_dict=True)
        for given in (attack, {"pgd": attack})
    ]
    assert logs[1].pop("robust_accuracy_pgd") == logs[1]["robust_accuracy"]
    assert logs[0] == pytest.approx(logs[1])


def test_without_an_attack_in_training(cnn, blobs):
    (x, y), model = blobs(), cnn()
    trainer = kr.Distillation(model, cnn(seed=1), validation_attack={"a": A, "b": B})
    trainer.compile("sgd", LOSS)
    logs = trainer.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["robust_accuracy"] <= min(logs["robust_accuracy_a"], logs["robust_accuracy_b"])


@pytest.mark.parametrize(
    "given, error, says",
    [
        ({}, ValueError, "empty dict"),
        ({"": A}, ValueError, "must name its attacks"),
        ({3: A}, TypeError, "got 3"),
        ({"a": brightened}, TypeError, "brightened"),
        ([A, B], TypeError, "validation_attack"),
        ({"a": A, "b": FGSM(0.1, bounds=(-1.0, 1.0))}, ValueError, "same range"),
    ],
)
def test_refused_before_training(cnn, given, error, says):
    with pytest.raises(error, match=says):
        kr.AdversarialTraining(cnn(), FGSM(0.1), validation_attack=given)


def test_no_attack_takes_none(cnn):
    trainer = kr.AdversarialTraining(cnn(), FGSM(0.1))
    assert trainer.validation_attack is trainer.attack
