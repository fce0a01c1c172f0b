"""The example runs, and shows what the paper's tables show."""

import importlib.util
import os
import pathlib

import numpy as np
import pytest

pytestmark = pytest.mark.once

ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(os.environ.get("KERAS_ROBUST_DATA", ROOT / "../shared/data"))


@pytest.mark.skipif(not (DATA / "mnist.npz").exists(), reason="MNIST is not at hand")
def test_quick(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_ROBUST_DATA", str(DATA))
    path = ROOT / "examples" / "intriguing_properties.py"
    spec = importlib.util.spec_from_file_location("intriguing_properties", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    made = example.main(["--quick", "--images", "10", "--output", str(tmp_path)])

    by_model = {name: found.mean_rms for name, found in made["distortions"].items()}
    assert by_model["FC10(1)"] > by_model["FC10(1e-2)"] > by_model["FC10(1e-4)"]
    table = made["tables"]["2"]
    assert np.all(np.diag(table.errors) == 1)
    off = ~np.eye(len(table.errors), dtype=bool)
    assert table.errors[off].mean() > table.control[off].mean() + 0.05
    assert "Gaussian noise of the same RMS" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "intriguing_properties.json",
        "transfer_2.png",
        "transfer_3.png",
        "transfer_4.png",
    ]
