"""The example runs, and shows what the paper's tables show."""

import numpy as np
import pytest

pytestmark = pytest.mark.once


def test_quick(load_example, tmp_path, capsys):
    example = load_example("intriguing_properties", "mnist.npz")
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
