"""The example runs, and its rows are trained as they say."""

import importlib.util
import json
import os
import pathlib

import numpy as np
import pytest

pytestmark = pytest.mark.once

ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(os.environ.get("KERAS_ROBUST_DATA", ROOT / "../shared/data"))


@pytest.fixture
def example(monkeypatch):
    if not (DATA / "mnist.npz").exists():
        pytest.skip("MNIST is not at hand")
    monkeypatch.setenv("KERAS_ROBUST_DATA", str(DATA))
    path = ROOT / "examples" / "layer_feedback.py"
    spec = importlib.util.spec_from_file_location("layer_feedback_example", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_quick(example, tmp_path, capsys):
    only = ["weight decay", "feedback, each layer"]
    made = example.main(["--quick", "--output", str(tmp_path / "rows.json"), "--only", *only])
    assert json.loads((tmp_path / "rows.json").read_text()) == made
    assert list(made) == only
    for row in made.values():
        assert len(row["test"]) == 1 and 0 < row["test"][0] < 60  # Chance is 90.
        assert row["train"][0] < 60
    assert made[only[0]]["test"] != made[only[1]]["test"]
    assert "<1.2" in capsys.readouterr().out


def test_validation_is_cut_from_the_training_set(example):
    (x, y), (held, labels) = example.mnist(None, validation=True)
    assert x.shape == (50_000, 784) and held.shape == (10_000, 784)
    assert x.dtype == "float32" and 0 <= x.min() and x.max() <= 1
    with np.load(DATA / "mnist.npz") as file:
        images, digits = file["x_train"], file["y_train"]
    # Which image is where follows from the sum of its pixels, and no image is in both.
    sums = np.round(255 * np.concatenate([x.sum(1), held.sum(1)], dtype="float64"))
    np.testing.assert_allclose(np.sort(sums), np.sort(images.sum((1, 2))), atol=1)
    np.testing.assert_array_equal(np.bincount(np.concatenate([y, labels])), np.bincount(digits))
