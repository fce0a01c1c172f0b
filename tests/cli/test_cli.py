"""The command line, run as a user does: a process, its output and its exit code."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import LEGACY, keras
from keras_robust.cli._parser import make_parser


def test_train_evaluate_export(call, archive, saved, tmp_path):
    out = tmp_path / "robust.keras"
    common = ["--data", archive, "--batch-size", 32, "--eps", 0.1]
    code, text, progress = call(
        "train", *common, "--model", saved, "--steps", 2, "--epochs", 3, "--out", out
    )
    assert code == 0 and "clean accuracy" in text and "epoch 3/3" in progress
    trained = keras.models.load_model(out)
    assert isinstance(trained, keras.Model)
    before, after = keras.models.load_model(saved).get_weights(), trained.get_weights()
    assert max(np.abs(a - b).max() for a, b in zip(before, after, strict=True)) > 1e-3

    file = tmp_path / "robust.tflite"
    code, text, _ = call(
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
    facts = json.loads(text)
    assert facts["data"]["images"] == 40
    facts = facts["artifacts"]
    assert set(facts) == {"float", "device"}
    assert set(facts["device"]["robust_accuracy"]) == {"FGSM", "PGD-3"}
    assert facts["device"]["queries"]["Square-1000"] > 0
    assert (tmp_path / "journal" / "journal.jsonl").exists()
    assert (report / "report.html").exists() and (report / "report.json").exists()


def test_export_for_serving(call, archive, saved, tmp_path):
    code, text, _ = call(
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
    served = tf.saved_model.load(str(tmp_path / "m" / "7")).signatures["serving_default"]
    images = np.load(archive)["x_test"]
    logits = keras.models.load_model(saved)(images)
    found = served(images=tf.constant(images))
    np.testing.assert_allclose(found["logits"], logits, atol=1e-5)
    names = np.array(kr.data.load(archive).class_names)[np.argmax(logits, axis=1)]
    assert [name.decode() for name in found["classes"].numpy()] == names.tolist()


@pytest.mark.skipif(not LEGACY, reason="compress needs tf_keras")
def test_compress(call, archive, saved, tmp_path):
    out = tmp_path / "small"
    code, text, _ = call(
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
def test_compress_under_keras_3_says_the_fix(call, archive, saved, tmp_path):
    code, _, errors = call(
        "compress", "--data", archive, "--model", saved, "--out", tmp_path / "small"
    )
    assert code == 2 and "TF_USE_LEGACY_KERAS=1" in errors


@pytest.mark.skipif(LEGACY, reason="once is enough")
def test_compress_by_layers_alone_needs_no_tfmot(call, archive, saved, tmp_path):
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
    code, text, errors = call("compress", *data, *settings, *wide)
    assert code == 0 and "shrunk" in text, errors
    names = {"factorized.keras", "shrunk.keras", "model.tflite"}
    assert {path.name for path in out.iterdir()} == names
    small = keras.saving.load_model(out / "shrunk.keras")
    assert small.get_layer("wide").units == 8
    settings = ["--binarize", "--no-quantize"]
    code, text, errors = call("compress", *data, *settings, *wide[:-1], tmp_path / "binary")
    assert code == 0 and "binarized" in text, errors
    assert {path.name for path in (tmp_path / "binary").iterdir()} == {
        "binarized.keras",
        "model.tflite",
    }
    binary = keras.saving.load_model(tmp_path / "binary" / "binarized.keras")
    assert np.unique(binary.get_layer("wide").kernel).size == 2


def test_file_of_the_other_keras_is_taken(call, archive, tmp_path):
    other = __import__("keras" if LEGACY else "tf_keras")
    model = other.Sequential(
        [other.Input((6, 6, 1)), other.layers.Flatten(), other.layers.Dense(3)]
    )
    path = tmp_path / "other.keras"
    model.save(path)
    code, text, _ = call(
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
        (
            ["export", "--model", "bad.keras", "--data", "embedded", "--out", "m.tflite"],
            "'bad.keras' is no .keras file",
        ),
    ],
)
def test_wrong_input_is_exit_code_2(call, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.keras").write_bytes(b"not a zip")
    code, text, errors = call(*arguments)
    assert code == 2 and message in errors and text == ""
    assert "Traceback" not in errors
    assert not (tmp_path / "m.keras").exists()


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), ("0.1", 0.1), ("1e-3", 1e-3), ("-1", -1.0)]
)
def test_a_radius_may_be_a_fraction(text, value):
    given = ["train", "--eps", text, "--step-size", text, "--out", "m.keras"]
    options = make_parser().parse_args(given)
    assert options.eps == options.step_size == value


@pytest.mark.parametrize("text", ["8/0", "8/", "8/255/2", "eight"])
def test_what_is_no_radius_is_named(capsys, text):
    with pytest.raises(SystemExit):
        make_parser().parse_args(["train", "--eps", text, "--out", "m.keras"])
    assert f"a number or a fraction, such as 0.1 or 8/255, got {text!r}" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["evaluate", "train", "export"])
def test_a_model_of_other_images_is_told_of_data(call, small, tmp_path, command):
    model = [small] if command == "evaluate" else ["--model", small, "--out", tmp_path / "o.keras"]
    code, text, errors = call(command, *model, "--data", "embedded", "--limit", 300)
    assert code == 2 and text == ""
    assert "takes images of shape (6, 6, 1), but those of --data" in errors
    assert "the embedded ones by default, have (28, 28, 1)." in errors


def test_served_models_are_named_by_their_address(call, archive, saved):
    address = "http://127.0.0.1:9/v1/models/m?a=b"
    code, _, errors = call("evaluate", f"live={address}", "--data", archive, "--limit", 9)
    assert code == 2 and "`artifacts['live']`" in errors and "is no address" in errors


def test_targets_that_cannot_be_written_stop_before_the_work(call, archive, saved, tmp_path):
    (tmp_path / "folder.keras").mkdir()
    (tmp_path / "file").write_text("")
    for arguments in (
        ["train", "--data", archive, "--out", tmp_path / "folder.keras"],
        ["train", "--data", archive, "--out", tmp_path / "file" / "m.keras"],
        ["evaluate", saved, "--data", archive, "--report", tmp_path / "file"],
    ):
        code, _, errors = call(*arguments)
        assert code == 2 and ("is a folder" in errors or "cannot write" in errors)
        assert "epoch" not in errors and "standing" not in errors


def test_paths_may_hold_equals_signs(call, archive, saved, tmp_path):
    path = tmp_path / "lr=0.1" / "m.keras"
    path.parent.mkdir()
    path.write_bytes(pathlib.Path(saved).read_bytes())
    few = ["--data", archive, "--limit", 9, "--steps", 1, "--attacks", "pgd"]
    for argument, name in ((path, "m.keras"), (f"mine={path}", "mine")):
        code, text, errors = call("evaluate", argument, *few)
        assert code == 0 and name in text, errors


def test_few_images_are_enough_where_nothing_is_trained(call, archive, saved):
    few = ["--limit", 9, "--steps", 1, "--attacks", "pgd"]
    code, text, _ = call("evaluate", saved, "--data", archive, *few)
    assert code == 0 and "9 images" in text


def test_unknown_attack_is_named(call, saved):
    code, _, errors = call("evaluate", saved, "--attacks", "pgd,magic", "--limit", 300)
    assert code == 2 and "--attacks knows fgsm, pgd, square, autoattack, got 'magic'" in errors


def test_interruption_is_exit_code_130(call, monkeypatch):
    from keras_robust.cli import _commands

    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(_commands, "evaluate", interrupted)
    assert call("evaluate", "m.keras") == (130, "", "keras-robust: interrupted\n")


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
def test_demo_quick(call, tmp_path):
    """The whole main job with little of everything; the folder may hold an older one."""
    from keras_robust.cli import _demo

    monkey = pytest.MonkeyPatch()
    tiny = _demo.Budget(natural=1, robust=1, stages=(1, 1, 1), limit=512, images=40, sweep=20)
    monkey.setattr(_demo, "QUICK", tiny)
    asked, init = [], kr.AdversarialTraining.__init__

    def spy(self, model, attack, *args, **kwargs):
        init(self, model, attack, *args, **kwargs)
        asked.append((self.attack, self.validation_attack, self.seed))

    monkey.setattr(kr.AdversarialTraining, "__init__", spy)
    with monkey.context():
        for _ in range(2):
            code, text, progress = call("demo", "--quick", "--report", tmp_path, "--seed", 3)
    monkey.undo()
    # Naturally, robustly, then the pruned, clustered and quantized model: robustly too.
    pgd = kr.attacks.PGD(0.1, steps=5, step_size=0.1 * 0.4)
    assert asked == 2 * [(kr.attacks.FGSM(0.0), pgd, 3), *[(pgd, pgd, 3)] * 4]
    assert code == 0 and "int8 .tflite" in text and "[5/5" in progress
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"report.json", "report.html", "shipped"}
    shipped = tmp_path / "shipped"
    assert (shipped / "model.tflite").exists()
    assert (shipped / "serving" / "1" / "saved_model.pb").exists()
    facts = kr.Report.load(tmp_path).to_dict()
    assert facts["seed"] == 3
    attacks = [kr.attacks.FGSM(0.1), kr.attacks.PGD(0.1, steps=20)]
    attacks.append(kr.attacks.Square(0.1, queries=300))
    assert [attack["config"] for attack in facts["attacks"]] == [repr(each) for each in attacks]
    artifacts = facts["artifacts"]
    assert list(artifacts) == [
        "natural",
        "robust",
        "pruned",
        "clustered",
        "int8 .tflite",
        "SavedModel",
    ]
    assert set(artifacts["int8 .tflite"]["robust_accuracy"]) == {"FGSM", "PGD-20"}
    twins = {"robust", "clustered", "fake-quantized twin", "fake-quantized twin (straight-through)"}
    assert set(artifacts["int8 .tflite"]["sources"]["PGD-20"]) == twins
    assert set(artifacts["SavedModel"]["sources"]["PGD-20"]) == {"SavedModel", "clustered"}
