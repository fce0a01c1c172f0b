"""The example runs, its files are a bit a weight, and what is there is not trained again."""

import json

import pytest

import keras_robust as kr

pytestmark = pytest.mark.once


def test_quick(load_example, tmp_path, monkeypatch, capsys):
    example = load_example("binary_connect", "mnist.npz")
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


def test_a_convolutional_net(load_example, tmp_path):
    example = load_example("binary_connect", "cifar10_subset.npz")
    arguments = ["--quick", "--data", "cifar10", "--epochs", "1", "--units", "16"]
    arguments += ["--output", str(tmp_path)]

    row = example.main([*arguments, "--rows", "deterministic"])["deterministic"]

    kernels = kr.compress.size_report(tmp_path / "deterministic.krz").weights
    kernels = [kernel for kernel in kernels if kernel["weight"] == "kernel"]
    assert [kernel["distinct"] for kernel in kernels] == [2] * 9
    assert (tmp_path / "deterministic.krz").stat().st_size == row["packed"] < row["tflite"]


def test_unknown_rows_are_refused(load_example, capsys):
    with pytest.raises(SystemExit):
        load_example("binary_connect").main(["--data", "cifar10", "--rows", "50% dropout"])
    assert "50% dropout" in capsys.readouterr().err
