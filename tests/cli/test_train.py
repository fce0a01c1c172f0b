"""`keras-robust train`, alone and by several workers: what it trains, says, keeps and writes."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.attacks import PGD
from keras_robust.training import _choices
from keras_robust.training._choices import HalfTrial, Trial


def test_resume_goes_on(call, archive, saved, tmp_path):
    def train(epochs, out):
        return call(
            "train",
            "--data",
            archive,
            "--batch-size",
            32,
            "--model",
            saved,
            "--steps",
            1,
            "--epochs",
            epochs,
            "--resume",
            tmp_path / "run",
            "--out",
            out,
            "--json",
        )

    code, first, _ = train(2, tmp_path / "a.keras")
    code, again, progress = train(2, tmp_path / "b.keras")
    assert code == 0 and json.loads(first)["history"] == json.loads(again)["history"]
    assert "epoch" not in progress


def test_a_loss_that_is_not_finite_is_exit_code_3(call, archive, saved, tmp_path):
    fast = ["--steps", 1, "--epochs", 3, "--batch-size", 8, "--learning-rate", 1e38]
    code, _, errors = call(
        "train", "--data", archive, "--model", saved, *fast, "--out", tmp_path / "o.keras"
    )
    assert code == 3 and "is not finite" in errors and "Traceback" not in errors


@pytest.mark.parametrize(
    ("given", "attack"),
    [([], PGD(0.1, steps=7)), (["--objective", "natural"], kr.attacks.FGSM(0.0))],
)
def test_only_natural_training_goes_without_an_attack(
    call, archive, saved, tmp_path, spied, given, attack
):
    seen = spied(kr.AdversarialTraining, "compile")
    call("train", "--data", archive, "--model", saved, "--out", tmp_path / "o.keras", *given)
    trainer = seen[0][0][0]
    assert trainer.attack == attack and trainer.validation_attack == PGD(0.1, steps=7)
    assert trainer.objective == kr.objectives.Madry()
    assert trainer.eps_ramp == kr.training.Ramp(steps=2)  # Two epochs of one batch.


def test_the_attack_and_the_seed_are_those_asked_for(call, archive, tmp_path, spied, seeds):
    seen = spied(kr.AdversarialTraining, "compile")
    settings = ["--eps", 0.3, "--norm", "l2", "--steps", 2, "--step-size", 0.05, "--seed", 3]
    new = ["--model", "small_cnn", "--out", tmp_path / "o.keras"]
    call("train", "--data", archive, *new, *settings)
    trainer = seen[0][0][0]
    assert trainer.attack == PGD(0.3, "l2", steps=2, step_size=0.05)
    assert trainer.validation_attack == trainer.attack
    assert trainer.seed == 3 and seeds == [3]
    expected = kr.zoo.build("small_cnn", input_shape=(6, 6, 1), classes=3, seed=3)
    for weight, other in zip(trainer.model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, other)


@pytest.mark.parametrize("name", ["natural", "madry", "alp", "awp", "mixed"])
def test_beta_of_an_objective_without_it_is_refused(call, saved, tmp_path, name):
    out = tmp_path / "o.keras"
    code, _, errors = call("train", "--objective", name, "--beta", 2.5, "--out", out)
    assert code == 2 and f"--beta is of trades and mart, got --objective {name}" in errors


@pytest.mark.parametrize(
    ("given", "taken"),
    [([], "auto"), (["--xla"], True), (["--xla", "on"], True), (["--xla", "off"], False)],
)
def test_xla_is_left_to_a_trial_unless_it_is_asked_for(
    call, archive, saved, tmp_path, monkeypatch, given, taken
):
    seen = []

    def compile_(self, *_, jit_compile, **__):
        seen.append(jit_compile)
        raise ValueError("seen enough")

    monkeypatch.setattr(kr.AdversarialTraining, "compile", compile_)
    arguments = ["--data", archive, "--model", saved, "--out", tmp_path / "o.keras", *given]
    code, _, errors = call("train", *arguments)
    assert code == 2 and "seen enough" in errors and seen == [taken]


def test_a_long_run_says_what_the_trial_of_xla_found(call, archive, saved, tmp_path, monkeypatch):
    monkeypatch.setattr(_choices, "LEAST_STEPS", 6)
    monkeypatch.setattr(_choices, "try_xla", lambda *_: Trial(2.0, 1.0))
    monkeypatch.setattr(_choices, "try_half", lambda *_: HalfTrial(0.5, 1.0))
    short = ["--steps", 1, "--epochs", 1, "--batch-size", 32, "--attack-dtype", "auto"]
    short += ["--out", tmp_path / "o.keras"]
    code, text, progress = call("train", "--data", archive, "--model", saved, *short)
    assert code == 0 and "jit_compile=False: a pass takes" in progress
    assert "attack_dtype='bfloat16': a pass takes" in progress
    assert "jit_compile" not in text


@pytest.mark.parametrize("name", ["trades", "mart", "alp", "awp", "mixed"])
def test_each_objective_is_built_with_its_own_settings(
    call, archive, saved, tmp_path, monkeypatch, name
):
    seen = []

    def compile_(self, *_, **__):
        seen.append((self.objective, self.attack_dtype))
        raise ValueError("seen enough")

    monkeypatch.setattr(kr.AdversarialTraining, "compile", compile_)
    short = ["--data", archive, "--model", saved, "--out", tmp_path / "o.keras"]
    for given in ([], ["--beta", 2.5]):
        call("train", *short, "--objective", name, *given)
    default, taken = seen[0][0], seen[1][0] if len(seen) == 2 else None
    assert seen[0][1] is None and type(default).__name__.lower() == name
    assert default == type(default)()
    if name in ("trades", "mart"):
        assert taken == type(default)(beta=2.5)
    else:
        assert taken is None  # It has no beta: refused.


def test_train_on_one_mirrored_device(call, archive, saved, tmp_path):
    one = ["--steps", 1, "--epochs", 1, "--strategy", "mirrored", "--out", tmp_path / "o.keras"]
    code, _, errors = call("train", "--data", archive, "--model", saved, *one)
    assert code == 0, errors
    assert (tmp_path / "o.keras").exists()


def test_train_by_two_workers(archive, saved, tmp_path):
    """The command as it is typed: two processes that talk over loopback, one result."""
    out, state = tmp_path / "o.keras", tmp_path / "run" / "state.npz"
    arguments = ["--data", archive, "--batch-size", 32, "--model", saved, "--steps", 2, "--json"]
    arguments += ["--epochs", 3, "--learning-rate", 0.02]
    arguments += ["--workers", 2, "--resume", state.parent, "--out", out]
    command = [sys.executable, "-m", "keras_robust.cli", "train", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)  # Of one worker: the other writes no result.
    assert facts["model"] == str(out) and done.stderr.count("epoch 3/3") == 1
    assert {"loss", "val_accuracy", "val_robust_accuracy"} <= facts["history"].keys()
    assert all(len(values) == 3 for values in facts["history"].values())
    before, after = (keras.models.load_model(path).get_weights() for path in (saved, out))
    assert max(np.abs(a - b).max() for a, b in zip(before, after)) > 0.01
    assert facts["history"]["val_accuracy"][-1] > 0.5  # Of three classes.
    assert state.exists() and {path.name for path in tmp_path.iterdir()} == {
        "blobs.npz",
        "model.keras",
        "o.keras",
        "run",
    }


def test_workers_on_cpus_without_xla(call, archive, saved, tmp_path, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    arguments = ["--model", saved, "--workers", 2, "--xla", "--out", tmp_path / "o.keras"]
    code, _, errors = call("train", "--data", archive, *arguments)
    assert code == 2 and "--xla on cannot be had with --workers 2 on CPUs" in errors


@pytest.mark.once
def test_the_code_of_a_failed_worker_is_that_of_the_command(archive, saved, tmp_path):
    """Data that each worker finds wrong is wrong usage: none starts again."""
    arguments = ["--data", archive, "--batch-size", 64, "--image-size", 9, "--model", saved]
    arguments += ["--workers", 2, "--out", tmp_path / "o.keras"]
    command = [sys.executable, "-m", "keras_robust.cli", "train", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "start again" not in done.stderr
    assert "ended with exit code 2" in done.stderr
    assert done.stdout == "" and not (tmp_path / "o.keras").exists()
