"""Trainers in words: the same words for the same trainer, others for another."""

import json

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.compress._logged import check_metric, described, measured


def trainer(attack=None, optimizer="sgd", **settings):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    made = model if attack is None else kr.AdversarialTraining(model, attack, **settings)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(optimizer, loss, metrics=["accuracy"])
    return made


def schedule(rate):
    return keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(rate, 10, 0.9))


def test_the_same_trainer_has_the_same_words():
    attack = kr.attacks.PGD(eps=0.1, steps=2)
    for make in (
        trainer,
        lambda: trainer(attack, objective=kr.objectives.TRADES(2.0)),
        lambda: trainer(optimizer=schedule(0.1)),
    ):
        words = described(make())
        assert words == described(make()) == json.loads(json.dumps(words))
    words = described(trainer(attack, objective=kr.objectives.TRADES(2.0)))
    assert words["fine_tune"] == "AdversarialTraining" and words["optimizer"] == "SGD"
    assert "eps=0.1" in words["fine_tune.attack"] and "2.0" in words["fine_tune.objective"]


def test_another_trainer_has_others():
    attack, wider = kr.attacks.FGSM(0.1), kr.attacks.FGSM(0.2)
    makes = [
        trainer(),
        trainer(optimizer=keras.optimizers.SGD(0.5)),
        trainer(optimizer=keras.optimizers.SGD(momentum=0.5)),
        trainer(optimizer=schedule(0.1)),
        trainer(optimizer=schedule(0.2)),
        trainer(attack),
        trainer(wider),
        trainer(attack, objective=kr.objectives.ALP(2.0)),
        trainer(attack, seed=1),
    ]
    assert len({json.dumps(described(each)) for each in makes}) == len(makes)


def distillation(seed=0, **settings):
    start = keras.initializers.GlorotUniform(seed=seed)
    net = [
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, kernel_initializer=start)])
        for _ in range(2)
    ]
    made = kr.Distillation(net[0], [net[1]], **settings)
    made.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    made.judge = net[1]
    net[1].trainable = False
    return made


def test_teachers_are_told_apart_by_their_weights_and_not_their_names():
    first, again, other = distillation(), distillation(), distillation(seed=1)
    assert described(first) == described(again) != described(other)
    for name in ("fine_tune.objective", "fine_tune.judge"):
        assert described(first)[name] != described(other)[name]
    assert described(first) != described(distillation(temperature=3.0))


def test_settings_of_a_trainer_of_ones_own():
    class Mine(keras.Sequential):
        def __init__(self, **settings):
            super().__init__([keras.Input((4,)), keras.layers.Dense(3)])
            for name, value in settings.items():
                setattr(self, name, value)
            loss = keras.losses.CategoricalCrossentropy
            self.compile("sgd", loss(label_smoothing=settings.get("smoothed", 0.0)))

    makes = [
        Mine(),
        Mine(kinds=["a", "b"]),
        Mine(kinds=["a", "c"]),
        Mine(mask=np.zeros(4)),
        Mine(mask=np.ones(4)),
        Mine(smoothed=0.1),
        Mine(attacks={"a": kr.attacks.FGSM(0.1)}),
        Mine(attacks={"a": kr.attacks.FGSM(0.2)}),
    ]
    assert len({json.dumps(described(each)) for each in makes}) == len(makes)
    # What is trained is not a setting of its training.
    made = Mine()
    made.also = keras.Sequential([keras.Input((4,)), *made.layers])
    assert described(made) == described(Mine())


def test_what_is_measured_is_asked_of_one_batch():
    batches = tf.data.Dataset.from_tensor_slices((np.ones((6, 4), "f4"), np.arange(6) % 3)).batch(2)
    made = trainer(kr.attacks.FGSM(0.0))
    assert {"accuracy", "loss", "robust_accuracy"} <= set(measured(made, batches))
    check_metric(made, batches, "metric", "robust_accuracy")
    with pytest.raises(ValueError, match=r"`metric` is 'acc', but the trainer measures .*For"):
        check_metric(made, batches, "metric", "acc")
