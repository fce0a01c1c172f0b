"""The report's numbers against what can be counted directly."""

import json
import random

import numpy as np
import pytest

import keras_robust as kr
from keras_robust._keras import keras


@pytest.fixture
def model(rng):
    built = keras.Sequential(
        [keras.Input((50,)), keras.layers.Dense(40, name="a"), keras.layers.Dense(3, name="b")]
    )
    kernel = np.where(rng.random((50, 40)) < 0.25, rng.integers(1, 5, (50, 40)), 0)
    built.get_layer("a").set_weights([kernel.astype("float32"), np.zeros(40, "float32")])
    return built


def test_counts_and_bytes(model, tmp_path):
    path = tmp_path / "m.krz"
    size = kr.compress.pack(model, path)
    report = kr.compress.size_report(path)
    row = report.weights[0]
    kernel = model.get_layer("a").kernel.numpy()
    shares = np.unique(kernel, return_counts=True)[1] / kernel.size
    bits = -np.sum(shares * np.log2(shares))
    assert (row["layer"], row["weight"], row["parameters"]) == ("a", "kernel", 2000)
    assert row["sparsity"] == np.mean(kernel == 0)
    assert row["distinct"] == 5
    assert row["bits"] == pytest.approx(bits)
    assert row["entropy"] == int(np.ceil(bits * 2000 / 8))
    assert row["dense"] == 8000
    assert row["entropy"] <= row["huffman"] <= row["codebook"] <= row["sparse"] <= row["dense"]
    assert row["ratio"] == pytest.approx(8000 / row["packed"])
    total = report.total
    assert total["parameters"] == model.count_params() == 2163
    assert total["file"] == size == path.stat().st_size
    assert total["packed"] + total["architecture"] == size
    assert total["ratio"] == pytest.approx(4 * 2163 / size)
    assert sum(r["packed"] for r in report.weights) == total["packed"]
    assert [layer["parameters"] for layer in report.layers()] == [2040, 123]


def test_a_model_and_its_file_give_the_same_report(model, tmp_path):
    kr.compress.pack(model, tmp_path / "m")
    assert kr.compress.size_report(model) == kr.compress.size_report(str(tmp_path / "m"))


def test_text_and_json(model):
    report = kr.compress.size_report(model)
    lines = str(report).splitlines()
    assert lines[0].split()[:4] == ["layer", "weight", "weights", "zeros"]
    assert lines[1].split()[:3] == ["a", "kernel", "2,000"]
    assert lines[-1].split() == [
        "file",
        f"{report.total['file']:,}",
        f"{report.total['ratio']:.1f}x",
    ]
    assert json.loads(json.dumps(report.to_dict()))["total"] == report.total


def test_wrong_arguments():
    with pytest.raises(ValueError, match="there is no such file"):
        kr.compress.size_report("missing.krz")
    for wrong in (3, None, b"model.krz", ["model.krz"]):
        with pytest.raises(TypeError, match="`model_or_path` must be a Keras model, or the path"):
            kr.compress.size_report(wrong)


def test_a_model_without_weights():
    model = keras.Sequential([keras.Input((4, 4)), keras.layers.Flatten()])
    report = kr.compress.size_report(model)
    assert report.total["parameters"] == report.total["dense"] == 0
    assert "all weights" in str(report)


def test_the_callers_random_numbers_stay(model, tmp_path):
    state = random.getstate()
    kr.compress.size_report(model)
    kr.compress.pack(model, tmp_path / "m.krz")
    kr.compress.size_report(tmp_path / "m.krz")
    kr.compress.unpack(tmp_path / "m.krz")
    assert random.getstate() == state
