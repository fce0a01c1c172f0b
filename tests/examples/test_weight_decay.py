"""The example runs, and more decay means smaller kernels and a lower temperature."""

import importlib.util
import json
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
    path = ROOT / "examples" / "weight_decay.py"
    spec = importlib.util.spec_from_file_location("weight_decay_example", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    made = example.main(["--quick", "--output", str(tmp_path / "rows.json")])
    assert json.loads((tmp_path / "rows.json").read_text()) == made
    low, high = made["low decay"], made["high decay"]
    assert low["test_error"] < 30 and high["test_error"] < 30
    assert np.all(np.array(high["weights_rms"]) < low["weights_rms"])
    assert high["temperature"] < low["temperature"]
    assert low["reached"] >= 7 and high["reached"] >= 7 and low["l2"] > 0.3
    assert "1.2 5.75" in capsys.readouterr().out


def test_digits_come_in_turn():
    path = ROOT / "examples" / "weight_decay.py"
    spec = importlib.util.spec_from_file_location("weight_decay_digits", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    y = np.arange(100)[::-1] % 10
    x, picked = example.one_after_the_other(np.arange(100), y, 20)
    assert picked.tolist() == [*range(10)] * 2
    np.testing.assert_array_equal(y[x], picked)
