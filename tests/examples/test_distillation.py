"""The example runs, and what it prints is what its networks do."""

import importlib.util
import os
import pathlib

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(os.environ.get("KERAS_ROBUST_DATA", ROOT / "../shared/data"))

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not (DATA / "mnist.npz").exists(), reason="MNIST is not at hand"),
]


def test_quick(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_ROBUST_DATA", str(DATA))
    path = ROOT / "examples" / "distillation.py"
    spec = importlib.util.spec_from_file_location("distillation_example", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    rows = example.main(["--quick", "--epochs", "2", "--output", str(tmp_path)])
    assert list(rows) == list(example.PAPER)
    # Little training on little data, but far from the 900 of chance.
    assert all(threes <= wrong < 600 for wrong, threes in rows.values())
    logits = np.load(tmp_path / "teacher.npy")
    assert logits.shape == (3000, 1, 10)
    _, _, (x, y) = example.mnist(4000)
    student = example.dense(800 // 8, 1)
    student.load_weights(tmp_path / "no_threes_2.weights.h5")
    assert int(np.sum(np.argmax(student(x), axis=1) != y)) == rows["no threes"][0]
    # Who has never seen a three is helped by a larger bias.
    assert rows["no threes, bias raised"][1] <= rows["no threes"][1]
    assert "of the threes" in capsys.readouterr().out
