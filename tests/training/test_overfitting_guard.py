"""The guard against collapse: it notices, puts the best weights back and trains on in full."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras, steps_taken
from keras_robust.training import OverfittingGuard
from keras_robust.training.objectives import Fast, Madry, Objective, Outcome


@dataclasses.dataclass(frozen=True)
class Collapsing(Objective):
    """Madry's objective that turns round after `good` steps, and so provokes a collapse."""

    good: int = 30

    def perturb(self, step, x, y):
        return step.attacked(x, y)

    def minimise(self, step, x, x_adv, y, sample_weight):
        loss, logits, _ = Madry().minimise(step, x, x_adv, y, sample_weight)
        sign = tf.where(steps_taken(TRAINER[0]) < self.good, 1.0, -1.0)
        return Outcome(sign * loss, logits, logits)


TRAINER = []


def fit(model, data, guard, objective=None, epochs=20, **settings):
    trainer = kr.AdversarialTraining(
        model, kr.attacks.PGD(0.1, steps=2), Collapsing() if objective is None else objective
    )
    TRAINER[:] = [trainer]
    trainer.compile(keras.optimizers.Adam(0.02))
    trainer.logs = trainer.fit(
        data, epochs=epochs, callbacks=[guard], verbose=0, **settings
    ).history
    return trainer


@pytest.fixture
def data(blobs):
    return tf.data.Dataset.from_tensor_slices(blobs(48)).batch(16)


def accuracy(model, x, y):
    x_adv = kr.attacks.PGD(0.1, steps=10)(model, x, y)
    return np.mean(np.argmax(model(x_adv), 1) == y)


@pytest.mark.filterwarnings("ignore:Robust accuracy")
def test_without_the_guard_it_collapses_and_with_it_recovers(cnn, blobs, data):
    held_out = blobs(24, seed=1)
    watched, guard = cnn(), OverfittingGuard(*held_out)
    with pytest.warns(UserWarning, match=r"fell from .* training goes on with Madry\(\)"):
        trainer = fit(watched, data, guard)
    assert guard.collapsed
    assert accuracy(watched, *held_out) > 0.9
    logged = trainer.logs["guard_robust_accuracy"]
    assert min(logged) < max(logged) - 0.2 and logged[-1] > 0.9
    assert trainer.objective == Collapsing()

    alone = cnn()
    fit(alone, data, keras.callbacks.Callback())
    assert accuracy(alone, *held_out) < 0.4  # Of three classes one is left.


def test_the_best_weights_are_put_back(cnn, blobs, data):
    """The fallback does not move them, so they stay what they were when they were best."""
    kept = []

    @dataclasses.dataclass(frozen=True)
    class Still(Madry):
        def minimise(self, *args):
            loss, logits, adv_logits = Madry.minimise(self, *args)
            return Outcome(0.0 * loss, logits, adv_logits)

    class Keeper(OverfittingGuard):
        def on_epoch_end(self, epoch, logs=None):
            before = float(self._best)
            weights = self.model.model.get_weights()
            super().on_epoch_end(epoch, logs)
            if float(self._best) > before or logs["guard_robust_accuracy"] == before:
                kept[:] = weights

    model = cnn()
    trainer = kr.AdversarialTraining(model, kr.attacks.PGD(0.1, steps=2), Collapsing())
    TRAINER[:] = [trainer]
    trainer.compile(keras.optimizers.Adam(0.02))
    guard = Keeper(*blobs(24, seed=1), fallback=Still(), drop=0.3)
    with pytest.warns(UserWarning, match="the best weights are put back"):
        trainer.fit(data, epochs=20, callbacks=[guard], verbose=0)
    assert guard.collapsed
    for a, b in zip(model.get_weights(), kept):
        np.testing.assert_allclose(a, b, atol=1e-7)


def test_second_collapse_stops(cnn, blobs, data):
    guard = OverfittingGuard(*blobs(24, seed=1), fallback=Collapsing())
    with pytest.warns(UserWarning, match="stops, since it has collapsed before"):
        trainer = fit(cnn(), data, guard, epochs=30)
    assert len(trainer.logs["loss"]) < 30
    assert accuracy(trainer.model, *blobs(24, seed=1)) > 0.5


def test_notices_inside_an_epoch(cnn, blobs, data):
    guard = OverfittingGuard(*blobs(24, seed=1), every=2)
    with pytest.warns(UserWarning, match="goes on with"):
        fit(cnn(), data.repeat(20), guard, epochs=1)
    assert guard.collapsed


def test_leaves_sound_training_alone(cnn, blobs, data):
    watched, alone = cnn(), cnn()
    fit(watched, data, OverfittingGuard(*blobs(24, seed=1)), Fast())
    fit(alone, data, keras.callbacks.Callback(), Fast())
    for a, b in zip(watched.get_weights(), alone.get_weights()):
        np.testing.assert_array_equal(a, b)


@pytest.mark.filterwarnings("ignore:Robust accuracy")
def test_resumes_to_the_same_weights(cnn, blobs, data, tmp_path):
    results = []
    for folder, parts in (("whole", [16]), ("parts", [6, 13, 16])):
        model = cnn()
        for epochs in parts:
            guard = OverfittingGuard(*blobs(24, seed=1))
            trainer = fit(model, data, guard, epochs=epochs, resume=tmp_path / folder)
        assert guard.collapsed and int(steps_taken(trainer)) == 48
        results.append(model.get_weights())
    for a, b in zip(*results):
        np.testing.assert_array_equal(a, b)


class StopWhenCollapsed(keras.callbacks.Callback):
    def __init__(self, guard):
        super().__init__()
        self.guard = guard

    def on_epoch_begin(self, epoch, logs=None):
        if self.guard.collapsed:
            raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore:Robust accuracy")
def test_interrupted_with_the_fallback_it_has_its_objective_again(cnn, blobs, data, tmp_path):
    model, objective = cnn(), Collapsing()
    guard = OverfittingGuard(*blobs(24, seed=1))
    trainer = kr.AdversarialTraining(model, kr.attacks.PGD(0.1, steps=2), objective)
    TRAINER[:] = [trainer]
    trainer.compile(keras.optimizers.Adam(0.02))
    settings = dict(epochs=16, verbose=0, resume=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(data, callbacks=[guard, StopWhenCollapsed(guard)], **settings)
    assert guard.collapsed and trainer.objective is objective
    # The same trainer goes on, with the fallback, to the weights of a run without interruption.
    trainer.fit(data, callbacks=[guard], **settings)
    assert int(steps_taken(trainer)) == 48 and trainer.objective is objective
    whole = cnn()
    fit(whole, data, OverfittingGuard(*blobs(24, seed=1)), epochs=16)
    for a, b in zip(whole.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_a_resumed_run_looks_at_the_same_steps(cnn, blobs, data, tmp_path, monkeypatch):
    looked = []
    check = OverfittingGuard._check
    monkeypatch.setattr(
        OverfittingGuard, "_check", lambda self: looked.append(int(self._steps)) or check(self)
    )
    for epochs in (1, 4):
        guard = OverfittingGuard(*blobs(24, seed=1), every=2)
        fit(cnn(), data, guard, Madry(), epochs=epochs, resume=tmp_path)
    assert looked == [2, 3, 4, 6, 6, 8, 9, 10, 12, 12]


@pytest.mark.parametrize(
    ("fallback", "settings", "message"),
    [
        (kr.objectives.Free(2), {}, "carries a perturbation"),
        (kr.objectives.Distil("stored"), {}, "needs stored logits"),
        (kr.objectives.VAT(), {"attack_dtype": "bfloat16"}, "`attack_dtype` must be None for VAT"),
        (kr.objectives.TRADES(), {"attack": kr.attacks.FGSM(0.1)}, "needs an attack with random"),
    ],
)
def test_a_fallback_that_the_trainer_cannot_use_is_refused_before_training(
    cnn, blobs, data, fallback, settings, message
):
    model, settings = cnn(), dict(settings)
    before = model.get_weights()
    attack = settings.pop("attack", kr.attacks.PGD(0.1))
    trainer = kr.AdversarialTraining(model, attack, **settings)
    trainer.compile("sgd")
    guard = OverfittingGuard(*blobs(24, seed=1), fallback=fallback)
    with pytest.raises(ValueError, match=message):
        trainer.fit(data, callbacks=[guard], verbose=0)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_by_default_it_measures_in_the_ball_of_the_trainer(blobs, cnn):
    data = tf.data.Dataset.from_tensor_slices(blobs(16)).batch(16)
    trainer = kr.AdversarialTraining(cnn(), kr.attacks.PGD(0.5, "l2", bounds=(-1, 2)))
    trainer.compile("sgd")
    guard = OverfittingGuard(*blobs(8, seed=1))
    trainer.fit(data, callbacks=[guard], verbose=0)
    assert guard.attack == kr.attacks.PGD(0.5, norm="l2", steps=10, bounds=(-1, 2))


def test_a_trainer_without_attack_is_refused(blobs, cnn, data):
    trainer = kr.Distillation(cnn(), cnn(seed=1))
    trainer.compile("sgd")
    guard = OverfittingGuard(*blobs(8, seed=1), attack=kr.attacks.FGSM(0.1))
    with pytest.raises(ValueError, match="needs a trainer with an attack, got a Distillation"):
        trainer.fit(data, callbacks=[guard], verbose=0)


def test_it_acts_on_the_trainer_that_it_is_used_with(cnn, blobs, data):
    """Also where another one has trained the same model with it before."""
    model, guard = cnn(), OverfittingGuard(*blobs(24, seed=1), fallback=Collapsing())
    fit(model, data, guard, Madry(), epochs=1)
    with pytest.warns(UserWarning, match="stops, since it has collapsed before"):
        trainer = fit(model, data, guard, epochs=30)
    assert len(trainer.logs["loss"]) < 30


def test_wrong_settings_are_refused():
    x, y = np.zeros((2, 4), "float32"), [0, 1]
    with pytest.raises(ValueError, match=r"`drop` must be in \(0, 1\), got drop=0"):
        OverfittingGuard(x, y, drop=0)
    with pytest.raises(ValueError, match="`every` must be an int >= 1, or None, got every=0"):
        OverfittingGuard(x, y, every=0)
    with pytest.raises(TypeError, match="`attack` must be for instance"):
        OverfittingGuard(x, y, attack="pgd")
    with pytest.raises(TypeError, match="`fallback` must be an objective"):
        OverfittingGuard(x, y, fallback="madry")
    with pytest.raises(ValueError, match="same length"):
        OverfittingGuard(x, [0, 1, 2])
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    plain.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(TypeError, match="OverfittingGuard watches kr.AdversarialTraining"):
        plain.fit(x, np.array(y), callbacks=[OverfittingGuard(x, y)], verbose=0)
