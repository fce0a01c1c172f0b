"""The example runs, its files are a bit a weight, and what is there is not trained again."""

import importlib.util
import json
import os
import pathlib

import pytest

import keras_robust as kr

ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(os.environ.get("KERAS_ROBUST_DATA", ROOT / "../shared/data"))

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not (DATA / "mnist.npz").exists(), reason="MNIST is not at hand"),
]


def example_of(monkeypatch):
    monkeypatch.setenv("KERAS_ROBUST_DATA", str(DATA))
    path = ROOT / "examples" / "binary_connect.py"
    spec = importlib.util.spec_from_file_location("binary_connect", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example


def test_quick(tmp_path, monkeypatch, capsys):
    example = example_of(monkeypatch)
    arguments = ["--quick", "--output", str(tmp_path), "--rows", "deterministic"]
    row = example.main(arguments)["deterministic"]
    assert (tmp_path / "deterministic.krz").stat().st_size == row["packed"]
    kernels = kr.compress.size_report(tmp_path / "deterministic.krz").weights
    kernels = [kernel for kernel in kernels if kernel["weight"] == "kernel"]
    assert [kernel["distinct"] for kernel in kernels] == [2] * 4
    # Little data and few steps, but far from the 90% of chance.
    assert row["error"] < 75 and row["robust"] <= 100 - row["error"] + 10
    assert row["bits"] < 2 and row["tflite"] > 4 * row["packed"]
    assert json.loads((tmp_path / "rows.json").read_text())["deterministic"] == row
    assert "PGD-20 %" in capsys.readouterr().out

    def fail(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(example, "train", fail)
    monkeypatch.setattr(example, "files", lambda *_: {k: row[k] for k in list(row)[2:]})
    assert example.main(arguments)["deterministic"]["error"] == row["error"]


def test_a_convolutional_net(tmp_path, monkeypatch):
    if not (DATA / "cifar10_subset.npz").exists():
        pytest.skip("CIFAR-10 is not at hand")
    example = example_of(monkeypatch)
    arguments = ["--quick", "--data", "cifar10", "--epochs", "1", "--output", str(tmp_path)]

    row = example.main([*arguments, "--rows", "deterministic"])["deterministic"]

    kernels = kr.compress.size_report(tmp_path / "deterministic.krz").weights
    kernels = [kernel for kernel in kernels if kernel["weight"] == "kernel"]
    assert [kernel["distinct"] for kernel in kernels] == [2] * 9
    assert (tmp_path / "deterministic.krz").stat().st_size == row["packed"] < row["tflite"]


def test_unknown_rows_are_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        example_of(monkeypatch).main(["--data", "cifar10", "--rows", "50% dropout"])
    assert "50% dropout" in capsys.readouterr().err
