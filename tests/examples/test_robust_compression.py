"""The example runs, its files unpack to what the table says, and each stage is smaller."""

import json

import numpy as np
import pytest

import keras_robust as kr
from keras_robust._keras import LEGACY


@pytest.mark.skipif(not LEGACY, reason="the example clusters by TF-MOT, which needs tf_keras")
def test_quick(load_example, tmp_path, capsys):
    example = load_example("robust_compression", "mnist.npz")
    arguments = ["--quick", "--net", "LeNet-300-100", "--output", str(tmp_path)]
    rows = example.main(arguments)["LeNet-300-100"]
    assert list(rows) == ["trained", "P", "P+Q"]
    folder = tmp_path / "LeNet-300-100"
    for title, row in rows.items():
        assert (folder / f"{title}.krz").stat().st_size == row["bytes"]
        assert row["PGD-20"] <= row["clean"] + 10 and row["AutoAttack"] is None
    assert rows["P+Q"]["bytes"] < rows["P"]["bytes"] / 3 < rows["trained"]["bytes"] / 3
    report = kr.compress.size_report(folder / "P+Q.krz")
    kernels = [row for row in report.weights if row["weight"] == "kernel"]
    np.testing.assert_allclose([row["sparsity"] for row in kernels], [0.92, 0.91, 0.74], atol=0.01)
    assert max(row["distinct"] for row in kernels) <= 64
    assert "smaller" in capsys.readouterr().out
    # Measured rows are kept, and the table is made from them.
    kept = json.loads((folder / "P.json").read_text())
    (folder / "P.json").write_text(json.dumps(kept | {"clean": 12.34}))
    assert example.main(arguments)["LeNet-300-100"]["P"]["clean"] == 12.34
