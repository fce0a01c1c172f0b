"""XLA and bfloat16 by trial: what was faster is taken, said, and kept by a run that goes on."""

import types

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust import losses
from keras_robust.training import _choices
from keras_robust.training._choices import HalfTrial, Trial, steps_in, try_half, try_xla, xla_of


@pytest.fixture
def data(blobs):
    return tf.data.Dataset.from_tensor_slices(blobs(24)).shuffle(24, seed=0).batch(8)


def trainer(cnn, jit="auto", **settings):
    made = kr.AdversarialTraining(cnn(seed=1), kr.attacks.FGSM(0.1), **settings)
    made.compile("sgd", jit_compile=jit)
    return made


def test_a_trial_times_both_and_changes_nothing(cnn, blobs):
    model = cnn(batch_norm=True)
    before = [np.array(variable) for variable in model.variables]
    trial = try_xla(model, *blobs(8))
    assert trial.compiled > 0 and trial.plain > 0
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, new)


def test_what_was_chosen_is_not_for_finite_differences(cnn):
    """As an objective to fall back on may take them."""
    chosen = trainer(cnn, attack_dtype="auto")
    chosen.choice = _choices.Choice(False, "bfloat16")
    assert chosen.passes_dtype() == "bfloat16"
    chosen.objective = kr.objectives.VAT()
    assert chosen.passes_dtype() is None


@pytest.mark.parametrize(
    ("compiled", "plain", "taken"),
    [(0.9, 1.0, True), (0.96, 1.0, False), (1.5, 1.0, False), (None, 1.0, False)],
)
def test_xla_is_taken_where_it_gains(compiled, plain, taken):
    trial = Trial(compiled, plain)
    assert trial.jit_compile is taken and str(trial).startswith(f"jit_compile={taken}")


def test_a_model_that_xla_cannot_compile_runs_without(rng):
    def model(x):  # An operation of the host alone.
        return tf.ensure_shape(tf.numpy_function(lambda v: v[:, :3], [x], tf.float32), [None, 3])

    model.trainable_variables = []
    x = rng.uniform(size=(4, 5)).astype("float32")
    trial = try_xla(model, x, np.arange(4) % 3)
    assert trial.compiled is None and not trial.jit_compile


@pytest.mark.parametrize(
    ("kinds", "replicas", "taken"),
    [
        (["CPU"], 1, False),  # A long `fit` tries it.
        (["CPU", "GPU"], 1, True),
        (["CPU", "GPU", "GPU"], 2, False),
        (["CPU", "TPU", "TPU"], 2, True),
    ],
)
def test_before_a_trial_the_devices_say(monkeypatch, kinds, replicas, taken):
    devices = [types.SimpleNamespace(device_type=kind) for kind in kinds]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda: devices)
    strategy = types.SimpleNamespace(num_replicas_in_sync=replicas)
    assert xla_of("auto", strategy) is taken
    assert xla_of(False, strategy) is False
    if "GPU" in kinds:
        assert xla_of(True, strategy) is True


def test_a_long_run_tries_says_and_takes(cnn, data, monkeypatch, capsys):
    for seconds, taken in ((0.5, True), (2.0, False)):
        monkeypatch.setattr(_choices, "LEAST_STEPS", 6)
        monkeypatch.setattr(_choices, "try_xla", lambda *_, s=seconds: Trial(s, 1.0))
        run = trainer(cnn)
        run.fit(data, epochs=2, verbose=2)
        assert bool(run.jit_compile) is taken
        assert f"jit_compile={taken}: a pass takes" in capsys.readouterr().out


@pytest.mark.parametrize("can", [True, False])
def test_on_a_gpu_xla_is_left_out_where_it_cannot_compile(cnn, data, monkeypatch, capsys, can):
    """A GPU in name only: XLA is the processor's, and has no operation of the host either way."""
    run = trainer(cnn)
    gpu = types.SimpleNamespace(device_type="GPU")
    devices = [*tf.config.list_logical_devices(), gpu]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda: devices)
    monkeypatch.setattr(_choices, "try_xla", None)
    if not can:
        call = losses.cross_entropy

        def of_the_host(labels, logits):
            return call(labels, tf.ensure_shape(hosted(logits), logits.shape))

        @tf.custom_gradient
        def hosted(logits):
            return tf.numpy_function(lambda v: v, [logits], tf.float32), lambda upper: upper

        monkeypatch.setattr(_choices.losses, "cross_entropy", of_the_host)
    run.jit_compile = True
    x, y = next(iter(data))
    _choices.settle(run, (x, y), 8, {"x": data, "verbose": 1})
    assert run.jit_compile is can and run.choice.jit_compile is can
    assert ("XLA cannot compile this model" in capsys.readouterr().out) is not can


def test_short_runs_and_settled_questions_are_not_tried(cnn, data, monkeypatch):
    def never(*_):
        raise AssertionError("tried")

    monkeypatch.setattr(_choices, "try_xla", never)
    trainer(cnn).fit(data, epochs=2, verbose=0)  # 6 of 1,000 steps
    monkeypatch.setattr(_choices, "LEAST_STEPS", 1)
    trainer(cnn, jit=False).fit(data, verbose=0)
    with pytest.raises(AssertionError, match="tried"):
        trainer(cnn).fit(data, verbose=0)


def test_a_run_that_goes_on_keeps_to_what_it_took(cnn, data, monkeypatch, tmp_path):
    monkeypatch.setattr(_choices, "LEAST_STEPS", 1)
    monkeypatch.setattr(_choices, "try_xla", lambda *_: Trial(0.5, 1.0))
    trainer(cnn).fit(data, epochs=1, verbose=0, resume=tmp_path)
    monkeypatch.setattr(_choices, "try_xla", lambda *_: Trial(2.0, 1.0))
    again = trainer(cnn)
    again.fit(data, epochs=2, verbose=0, resume=tmp_path)
    assert again.jit_compile
    fresh = trainer(cnn)
    fresh.fit(data, epochs=2, verbose=0, resume=tmp_path / "other")
    assert not fresh.jit_compile


@pytest.mark.parametrize("jit", [False, True])
def test_a_trial_of_bfloat16_computes_in_it_and_changes_nothing(cnn, blobs, jit, monkeypatch):
    model, seen = cnn(batch_norm=True), []
    before = [np.array(variable) for variable in model.variables]
    losses = _choices.losses

    class Watched:
        @staticmethod
        def cross_entropy(labels, logits):
            seen.append(model.layers[1].compute_dtype)
            return losses.cross_entropy(labels, logits)

    monkeypatch.setattr(_choices, "losses", Watched)
    trial = try_half(model, *blobs(8), jit)
    assert trial.half > 0 and trial.full > 0 and seen == ["bfloat16", "float32"]
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(("half", "taken"), [(0.5, "bfloat16"), (0.96, None), (1.3, None)])
def test_bfloat16_is_taken_where_it_gains(cnn, data, monkeypatch, capsys, half, taken):
    monkeypatch.setattr(_choices, "LEAST_STEPS", 6)
    monkeypatch.setattr(_choices, "try_half", lambda *_: HalfTrial(half, 1.0))
    run = trainer(cnn, jit=False, attack_dtype="auto")
    assert run.passes_dtype() is None
    run.fit(data, epochs=2, verbose=2)
    assert run.passes_dtype() == taken and run.attack_dtype == "auto"
    said = f"attack_dtype={taken!r}: a pass takes {1e3 * half:.3g} ms in bfloat16, 1e+03 ms without"
    assert said in capsys.readouterr().out


def test_bfloat16_by_trial_trains_what_it_trains_when_asked_for(cnn, blobs, monkeypatch):
    monkeypatch.setattr(_choices, "LEAST_STEPS", 1)
    monkeypatch.setattr(_choices, "try_half", lambda *_: HalfTrial(0.5, 1.0))
    weights = {}
    for dtype in ("auto", "bfloat16", None):
        run = trainer(cnn, jit=False, attack_dtype=dtype)
        run.fit(*blobs(24), batch_size=8, epochs=4, shuffle=False, verbose=0)
        weights[dtype] = np.concatenate([np.ravel(w) for w in run.model.get_weights()])
    np.testing.assert_array_equal(weights["auto"], weights["bfloat16"])
    assert np.any(weights["auto"] != weights[None])


def test_short_runs_and_small_differences_stay_in_full_precision(cnn, data, monkeypatch):
    def never(*_):
        raise AssertionError("tried")

    monkeypatch.setattr(_choices, "try_half", never)
    short = trainer(cnn, jit=False, attack_dtype="auto")
    short.fit(data, epochs=2, verbose=0)  # 6 of 1,000 steps
    monkeypatch.setattr(_choices, "LEAST_STEPS", 1)
    differences = trainer(cnn, jit=False, attack_dtype="auto", objective=kr.objectives.VAT())
    differences.fit(data, verbose=0)
    assert short.passes_dtype() is None and differences.passes_dtype() is None
    with pytest.raises(AssertionError, match="tried"):
        trainer(cnn, jit=False, attack_dtype="auto").fit(data, verbose=0)


def test_a_traced_step_is_not_tried_again(cnn, data, monkeypatch):
    monkeypatch.setattr(_choices, "LEAST_STEPS", 1)
    monkeypatch.setattr(_choices, "try_half", lambda *_: HalfTrial(0.5, 1.0))
    run = trainer(cnn, jit=False, attack_dtype="auto")
    run.fit(data, verbose=0)
    monkeypatch.setattr(_choices, "try_half", lambda *_: HalfTrial(2.0, 1.0))
    run.fit(data, verbose=0)
    assert run.passes_dtype() == "bfloat16"


def test_a_run_that_goes_on_keeps_its_precision(cnn, data, monkeypatch, tmp_path):
    monkeypatch.setattr(_choices, "LEAST_STEPS", 1)
    monkeypatch.setattr(_choices, "try_half", lambda *_: HalfTrial(0.5, 1.0))
    trainer(cnn, jit=False, attack_dtype="auto").fit(data, verbose=0, resume=tmp_path)
    monkeypatch.setattr(_choices, "try_half", lambda *_: HalfTrial(2.0, 1.0))
    again = trainer(cnn, jit=False, attack_dtype="auto")
    again.fit(data, epochs=2, verbose=0, resume=tmp_path)
    assert again.passes_dtype() == "bfloat16"
    with pytest.raises(ValueError, match="belongs to another run"):
        trainer(cnn, jit=False).fit(data, epochs=2, verbose=0, resume=tmp_path)


def test_steps_of_a_run(data, blobs):
    x, _ = blobs(24)
    assert steps_in(8, data, epochs=5) == 15
    assert steps_in(7, x, epochs=2) == 8
    assert steps_in(8, data, epochs=5, initial_epoch=3) == 6
    assert steps_in(8, data, epochs=2, steps_per_epoch=2) == 4
    assert steps_in(8, data.repeat(), epochs=2) == 0
    assert steps_in(None, iter(()), epochs=2) == 0
