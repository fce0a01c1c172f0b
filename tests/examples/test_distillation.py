"""The example runs, and what it prints is what its networks do."""

import numpy as np
import pytest

pytestmark = pytest.mark.once


def test_quick(load_example, tmp_path, capsys):
    example = load_example("distillation", "mnist.npz")
    rows = example.main(["--quick", "--epochs", "2", "--output", str(tmp_path)])
    assert list(rows) == list(example.PAPER)
    # Little training on little data, but far from the 900 of chance.
    assert all(threes <= wrong < 600 for wrong, threes in rows.values())
    logits = np.load(tmp_path / "teacher_2.npy")
    assert logits.shape == (4000, 1, 10)
    _, (x, y) = example.mnist(4000)
    student = example.dense(800 // 8, 1)
    student.load_weights(tmp_path / "no_threes_2.weights.h5")
    assert int(np.sum(np.argmax(student(x), axis=1) != y)) == rows["no threes"][0]
    # Who has never seen a three is helped by a larger bias.
    assert rows["no threes, bias raised"][1] <= rows["no threes"][1]
    assert "of the threes" in capsys.readouterr().out
