"""Which Keras runs, what is of the other one, and what the two do not take."""

import runpy
import sys

import numpy as np
import pytest

import keras_robust as kr
from keras_robust import _keras
from keras_robust._keras import LEGACY, keras, new_optimizer
from keras_robust.bridge._kerases import keras_3, tf_keras


def test_tf_keras_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    with pytest.raises(ImportError, match=r"keras-robust\[compress\].*leave the variable out"):
        runpy.run_path(_keras.__file__)


@pytest.mark.parametrize("argument", ["loss", "optimizer"])
def test_what_is_of_the_other_keras_is_refused_as_that(cnn, argument):
    other = keras_3() if LEGACY else tf_keras()
    given = {
        "loss": other.losses.SparseCategoricalCrossentropy(from_logits=True),
        "optimizer": other.optimizers.SGD(0.1),
    }
    trainer = kr.AdversarialTraining(cnn(), kr.attacks.FGSM(0.1))
    theirs = "Keras 3" if LEGACY else "tf_keras"
    with pytest.raises(TypeError, match=f"`{argument}` is a {theirs} {argument} .*but this proc"):
        trainer.compile(**{argument: given[argument]})


@pytest.mark.parametrize("loss", ["kl_divergence", "KLD", keras.losses.KLDivergence()])
def test_divergences_expect_probabilities(loss):
    assert _keras.expects_probabilities(loss)
    assert not _keras.expects_probabilities("mse")


@pytest.mark.skipif(not LEGACY, reason="Keras 3 has no legacy optimizers")
def test_legacy_optimizers_are_refused_and_no_name_makes_one(cnn, blobs, monkeypatch):
    trainer = kr.AdversarialTraining(cnn(), kr.attacks.FGSM(0.1))
    legacy = keras.optimizers.legacy.SGD(0.1)
    for each in (legacy, keras.mixed_precision.LossScaleOptimizer(legacy)):
        with pytest.raises(TypeError, match="`optimizer` is of the legacy class .* outside"):
            trainer.compile(each)
    # Apple's processors.
    monkeypatch.setattr("tf_keras.src.optimizers.is_arm_mac", lambda: True)
    assert isinstance(keras.optimizers.get("adam"), keras.optimizers.legacy.Adam)
    for name, kind in (("adam", keras.optimizers.Adam), ("SGD", keras.optimizers.SGD)):
        trainer.compile(name)
        assert type(trainer.optimizer) is kind
    before = trainer.model.get_weights()
    trainer.fit(*blobs(32), verbose=0)
    assert any(np.any(a != b) for a, b in zip(before, trainer.model.get_weights(), strict=True))
    assert new_optimizer("magic") == "magic"  # Which Keras names itself.
