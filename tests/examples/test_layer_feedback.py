"""The example runs, and its rows are trained as they say."""

import json

import numpy as np
import pytest

pytestmark = pytest.mark.once


@pytest.fixture
def example(load_example):
    return load_example("layer_feedback", "mnist.npz")


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


def test_validation_is_cut_from_the_training_set(example, data_folder):
    (x, y), (held, labels) = example.mnist(None, validation=True)
    assert x.shape == (50_000, 784) and held.shape == (10_000, 784)
    assert x.dtype == "float32" and 0 <= x.min() and x.max() <= 1
    with np.load(data_folder / "mnist.npz") as file:
        images, digits = file["x_train"], file["y_train"]
    # Which image is where follows from the sum of its pixels, and no image is in both.
    sums = np.round(255 * np.concatenate([x.sum(1), held.sum(1)], dtype="float64"))
    np.testing.assert_allclose(np.sort(sums), np.sort(images.sum((1, 2))), atol=1)
    np.testing.assert_array_equal(np.bincount(np.concatenate([y, labels])), np.bincount(digits))
