"""The command line, run as a user does: a process, its output and its exit code."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import keras_robust as kr
from keras_robust._keras import LEGACY, keras
from keras_robust.cli import main
from keras_robust.cli._parser import make_parser
from keras_robust.training import _choices
from keras_robust.training._choices import HalfTrial, Trial


@pytest.fixture
def archive(blobs, tmp_path):
    """Blobs as a data set on disk."""
    x, y = blobs(240)
    path = tmp_path / "blobs.npz"
    np.savez(path, x_train=x[:192], y_train=y[:192], x_test=x[192:], y_test=y[192:])
    return path


@pytest.fixture
def saved(cnn, tmp_path):
    path = tmp_path / "model.keras"
    cnn().save(path)
    return path


def call(capsys, *arguments):
    """Exit code, stdout and stderr of one command in this process."""
    code = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_train_evaluate_export(capsys, archive, saved, tmp_path):
    out = tmp_path / "robust.keras"
    common = ["--data", archive, "--batch-size", 32, "--eps", 0.1]
    code, text, progress = call(
        capsys, "train", *common, "--model", saved, "--steps", 2, "--epochs", 3, "--out", out
    )
    assert code == 0 and "clean accuracy" in text and "epoch 3/3" in progress
    assert isinstance(keras.models.load_model(out), keras.Model)

    file = tmp_path / "robust.tflite"
    code, text, _ = call(
        capsys,
        "export",
        "--data",
        archive,
        "--batch-size",
        32,
        "--model",
        out,
        "--out",
        file,
        "--json",
    )
    assert code == 0 and json.loads(text)["mode"] == "int8" and file.exists()

    report = tmp_path / "report"
    code, text, _ = call(
        capsys,
        "evaluate",
        f"float={out}",
        f"device={file}",
        *common,
        "--images",
        40,
        "--attacks",
        "fgsm,pgd",
        "--steps",
        3,
        "--journal",
        tmp_path / "journal",
        "--report",
        report,
        "--json",
    )
    assert code == 0
    facts = json.loads(text)["artifacts"]
    assert set(facts) == {"float", "device"}
    assert set(facts["device"]["robust_accuracy"]) == {"FGSM", "PGD-3"}
    assert facts["device"]["queries"]["Square-1000"] > 0
    assert (tmp_path / "journal" / "journal.jsonl").exists()
    assert (report / "report.html").exists() and (report / "report.json").exists()


def test_export_for_serving(capsys, archive, saved, tmp_path):
    code, text, _ = call(
        capsys,
        "export",
        "--data",
        archive,
        "--batch-size",
        32,
        "--model",
        saved,
        "--format",
        "serving",
        "--version",
        7,
        "--out",
        tmp_path / "m",
    )
    assert code == 0 and (tmp_path / "m" / "7" / "saved_model.pb").exists()


@pytest.mark.skipif(not LEGACY, reason="compress needs tf_keras")
def test_compress(capsys, archive, saved, tmp_path):
    out = tmp_path / "small"
    code, text, _ = call(
        capsys,
        "compress",
        "--data",
        archive,
        "--batch-size",
        32,
        "--model",
        saved,
        "--prune",
        0.5,
        "--cluster",
        8,
        "--epochs",
        1,
        "--steps",
        1,
        "--out",
        out,
    )
    assert code == 0 and "pruned" in text
    names = {"pruned.keras", "clustered.keras", "quantized.h5", "model.tflite"}
    assert {path.name for path in out.iterdir()} == names
    code, _, _ = call(
        capsys,
        "evaluate",
        out / "quantized.h5",
        out / "model.tflite",
        "--data",
        archive,
        "--batch-size",
        32,
        "--images",
        20,
        "--attacks",
        "fgsm,pgd",
        "--no-black-box",
        "--steps",
        1,
    )
    assert code == 0


@pytest.mark.skipif(LEGACY, reason="asks what happens without tf_keras")
def test_compress_under_keras_3_says_the_fix(capsys, archive, saved, tmp_path):
    code, _, errors = call(
        capsys, "compress", "--data", archive, "--model", saved, "--out", tmp_path / "small"
    )
    assert code == 2 and "TF_USE_LEGACY_KERAS=1" in errors


@pytest.mark.skipif(LEGACY, reason="once is enough")
def test_compress_by_layers_alone_needs_no_tfmot(capsys, archive, saved, tmp_path):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(16, "relu", name="wide"),
            keras.layers.Dense(3),
        ]
    )
    model.save(tmp_path / "wide.keras")
    out, data = tmp_path / "small", ["--data", archive, "--batch-size", 32]
    settings = ["--neurons", 0.5, "--factorize", 0.6, "--prune", 0, "--cluster", 0, "--no-quantize"]
    wide = ["--model", tmp_path / "wide.keras", "--epochs", 1, "--steps", 1, "--out", out]
    code, text, errors = call(capsys, "compress", *data, *settings, *wide)
    assert code == 0 and "shrunk" in text, errors
    names = {"factorized.keras", "shrunk.keras", "model.tflite"}
    assert {path.name for path in out.iterdir()} == names
    small = keras.saving.load_model(out / "shrunk.keras")
    assert small.get_layer("wide").units == 8
    settings = ["--binarize", "--no-quantize"]
    code, text, errors = call(capsys, "compress", *data, *settings, *wide[:-1], tmp_path / "binary")
    assert code == 0 and "binarized" in text, errors
    assert {path.name for path in (tmp_path / "binary").iterdir()} == {
        "binarized.keras",
        "model.tflite",
    }
    binary = keras.saving.load_model(tmp_path / "binary" / "binarized.keras")
    assert np.unique(binary.get_layer("wide").kernel).size == 2


def test_file_of_the_other_keras_is_taken(capsys, archive, tmp_path):
    other = __import__("keras" if LEGACY else "tf_keras")
    model = other.Sequential(
        [other.Input((6, 6, 1)), other.layers.Flatten(), other.layers.Dense(3)]
    )
    path = tmp_path / "other.keras"
    model.save(path)
    code, text, _ = call(
        capsys,
        "evaluate",
        path,
        "--data",
        archive,
        "--batch-size",
        32,
        "--images",
        20,
        "--attacks",
        "fgsm,pgd",
        "--no-black-box",
        "--steps",
        1,
    )
    assert code == 0 and "other.keras" in text


def test_resume_goes_on(capsys, archive, saved, tmp_path):
    def train(epochs, out):
        return call(
            capsys,
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "nowhere.npz", "--out", "m.keras"], "nowhere.npz"),
        (["train", "--out", "m.txt"], "--out must end in .keras, got 'm.txt'"),
        (["train", "--model", "vgg91", "--out", "m.keras"], "neither a file nor a built-in model"),
        (["train", "--eps", "-1", "--out", "m.keras"], "`eps` must be a finite number >= 0"),
        (
            ["train", "--workers", "2", "--strategy", "mirrored", "--out", "m.keras"],
            "--strategy mirrored is for one process, and --workers 2 starts several",
        ),
        (["evaluate", "nothing.tflite"], "There is no nothing.tflite"),
        (["evaluate", "a=x.keras", "--attacks", "magic"], "There is no x.keras"),
        (["export", "--model", "bad.keras", "--out", "m.tflite"], "bad.keras"),
    ],
)
def test_wrong_input_is_exit_code_2(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.keras").write_bytes(b"not a zip")
    code, text, errors = call(capsys, *arguments)
    assert code == 2 and message in errors and text == ""
    assert "Traceback" not in errors
    assert not (tmp_path / "m.keras").exists()


def test_a_loss_that_is_not_finite_is_exit_code_1(capsys, archive, saved, tmp_path):
    fast = ["--steps", 1, "--epochs", 3, "--batch-size", 8, "--learning-rate", 1e38]
    code, _, errors = call(
        capsys, "train", "--data", archive, "--model", saved, *fast, "--out", tmp_path / "o.keras"
    )
    assert code == 1 and "is not finite" in errors and "Traceback" not in errors


@pytest.mark.parametrize(
    ("given", "taken"),
    [([], "auto"), (["--xla"], True), (["--xla", "on"], True), (["--xla", "off"], False)],
)
def test_xla_is_left_to_a_trial_unless_it_is_asked_for(
    capsys, archive, saved, tmp_path, monkeypatch, given, taken
):
    seen = []

    def compile_(self, *_, jit_compile, **__):
        seen.append(jit_compile)
        raise ValueError("seen enough")

    monkeypatch.setattr(kr.AdversarialTraining, "compile", compile_)
    arguments = ["--data", archive, "--model", saved, "--out", tmp_path / "o.keras", *given]
    code, _, errors = call(capsys, "train", *arguments)
    assert code == 2 and "seen enough" in errors and seen == [taken]


def test_a_long_run_says_what_the_trial_of_xla_found(capsys, archive, saved, tmp_path, monkeypatch):
    monkeypatch.setattr(_choices, "LEAST_STEPS", 6)
    monkeypatch.setattr(_choices, "try_xla", lambda *_: Trial(2.0, 1.0))
    monkeypatch.setattr(_choices, "try_half", lambda *_: HalfTrial(0.5, 1.0))
    short = ["--steps", 1, "--epochs", 1, "--batch-size", 32, "--attack-dtype", "auto"]
    short += ["--out", tmp_path / "o.keras"]
    code, text, progress = call(capsys, "train", "--data", archive, "--model", saved, *short)
    assert code == 0 and "jit_compile=False: a pass takes" in progress
    assert "attack_dtype='bfloat16': a pass takes" in progress
    assert "jit_compile" not in text


@pytest.mark.parametrize("name", ["trades", "mart", "alp", "awp", "mixed"])
def test_each_objective_is_built_with_its_own_settings(
    capsys, archive, saved, tmp_path, monkeypatch, name
):
    seen = []

    def compile_(self, *_, **__):
        seen.append((self.objective, self.attack_dtype))
        raise ValueError("seen enough")

    monkeypatch.setattr(kr.AdversarialTraining, "compile", compile_)
    short = ["--data", archive, "--model", saved, "--out", tmp_path / "o.keras"]
    for given in ([], ["--beta", 2.5]):
        call(capsys, "train", *short, "--objective", name, *given)
    default, taken = seen[0][0], seen[1][0] if len(seen) == 2 else None
    assert seen[0][1] is None and type(default).__name__.lower() == name
    assert default == type(default)()
    if name in ("trades", "mart"):
        assert taken == type(default)(beta=2.5)
    else:
        assert taken is None  # It has no beta: refused.


def test_train_on_one_mirrored_device(capsys, archive, saved, tmp_path):
    one = ["--steps", 1, "--epochs", 1, "--strategy", "mirrored", "--out", tmp_path / "o.keras"]
    code, _, errors = call(capsys, "train", "--data", archive, "--model", saved, *one)
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


def test_served_models_are_named_by_their_address(capsys, archive, saved):
    address = "http://127.0.0.1:9/v1/models/m?a=b"
    code, _, errors = call(capsys, "evaluate", f"live={address}", "--data", archive, "--limit", 9)
    assert code == 2 and "`artifacts['live']`" in errors and "is no address" in errors


def test_targets_that_cannot_be_written_stop_before_the_work(capsys, archive, saved, tmp_path):
    (tmp_path / "folder.keras").mkdir()
    (tmp_path / "file").write_text("")
    for arguments in (
        ["train", "--data", archive, "--out", tmp_path / "folder.keras"],
        ["train", "--data", archive, "--out", tmp_path / "file" / "m.keras"],
        ["evaluate", saved, "--data", archive, "--report", tmp_path / "file"],
    ):
        code, _, errors = call(capsys, *arguments)
        assert code == 2 and ("is a folder" in errors or "cannot write" in errors)
        assert "epoch" not in errors and "standing" not in errors


def test_few_images_are_enough_where_nothing_is_trained(capsys, archive, saved):
    few = ["--limit", 9, "--steps", 1, "--attacks", "pgd"]
    code, text, _ = call(capsys, "evaluate", saved, "--data", archive, *few)
    assert code == 0 and "9 images" in text


def test_unknown_attack_is_named(capsys, saved):
    code, _, errors = call(capsys, "evaluate", saved, "--attacks", "pgd,magic", "--limit", 300)
    assert code == 2 and "--attacks knows fgsm, pgd, square, autoattack, got 'magic'" in errors


@pytest.mark.parametrize("arguments", [[], ["fly"], ["train", "--epochs", "0", "--out", "m.keras"]])
def test_wrong_usage_is_exit_code_2(arguments):
    with pytest.raises(SystemExit) as stopped:
        make_parser().parse_args(arguments)
    assert stopped.value.code == 2


def test_help_is_quick_and_has_examples():
    """Without importing TensorFlow, which takes seconds."""
    code = (
        "import sys, contextlib\nfrom keras_robust.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['train', '--help'])\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "keras-robust train --out robust.keras" in done.stdout


def test_command_line_picks_tf_keras_for_itself():
    code = (
        "import os\nfrom keras_robust.cli import main\n"
        "assert main(['evaluate', 'nothing.keras']) == 2\n"
        "assert os.environ['TF_USE_LEGACY_KERAS'] == '1'\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not LEGACY, reason="the demo compresses, which needs tf_keras")
def test_demo_quick(capsys, tmp_path):
    """The whole main job with little of everything; the folder may hold an older one."""
    from keras_robust.cli import _demo

    monkey = pytest.MonkeyPatch()
    tiny = _demo.Budget(natural=1, robust=1, stages=(1, 1, 1), limit=512, images=40, sweep=20)
    monkey.setattr(_demo, "QUICK", tiny)
    with monkey.context():
        for _ in range(2):
            code, text, progress = call(capsys, "demo", "--quick", "--report", tmp_path)
    monkey.undo()
    assert code == 0 and "int8 .tflite" in text and "[5/5" in progress
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"report.json", "report.html", "shipped"}
    shipped = tmp_path / "shipped"
    assert (shipped / "model.tflite").exists()
    assert (shipped / "serving" / "1" / "saved_model.pb").exists()
    artifacts = kr.Report.load(tmp_path).to_dict()["artifacts"]
    assert list(artifacts) == [
        "natural",
        "robust",
        "pruned",
        "clustered",
        "int8 .tflite",
        "SavedModel",
    ]
    assert set(artifacts["int8 .tflite"]["robust_accuracy"]) == {"FGSM", "PGD-20"}
