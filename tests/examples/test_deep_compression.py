"""The example runs, its files unpack, and its stages get smaller."""

import numpy as np
import pytest

import keras_robust as kr
from keras_robust._keras import LEGACY

pytestmark = pytest.mark.skipif(not LEGACY, reason="the example compresses with tf_keras")


def test_quick(load_example, tmp_path, monkeypatch, capsys):
    example = load_example("deep_compression", "mnist.npz")
    arguments = ["--quick", "--net", "LeNet-300-100", "--output", str(tmp_path)]
    rows = example.main(arguments)["LeNet-300-100"]
    folder = tmp_path / "LeNet-300-100"
    for title, row in rows.items():
        assert (folder / f"{title}.krz").stat().st_size == row["bytes"]
    # As many weights as the paper keeps, and the file as many times smaller.
    report = kr.compress.size_report(folder / "ours.krz")
    kept = [1 - row["sparsity"] for row in report.weights if row["weight"] == "kernel"]
    np.testing.assert_allclose(kept, [0.08, 0.09, 0.26], atol=0.002)
    assert max(row["distinct"] for row in report.weights if row["weight"] == "kernel") <= 65
    assert report.total["ratio"] >= 40
    kernels = [row for row in report.weights if row["weight"] == "kernel"]
    coded, limit = (sum(row[key] for row in kernels) for key in ("packed", "entropy"))
    assert coded <= 1.03 * limit
    assert rows["smaller 0"]["bytes"] < rows["ours"]["bytes"] < rows["P"]["bytes"] / 3
    # Little training on little data, but far from the 90% of chance.
    assert rows["ours"]["error"] < 25
    assert rows["ours"]["error"] < rows["reference"]["error"] + 8
    printed = capsys.readouterr().out
    assert "P+Q+H" in printed

    def fail(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(example, "fit", fail)
    monkeypatch.setattr(example, "fit_shared", fail)
    assert example.main(arguments)["LeNet-300-100"] == rows


def test_k_means_starts_between_the_extremes_and_keeps_zeros(load_example):
    values = np.array([0.0, 0.9, 1.1, -3.0, 0.0, 5.0], "float32")
    book, labels = load_example("deep_compression").k_means(values, 3)
    np.testing.assert_allclose(book, [-3.0, 1.0, 5.0])
    np.testing.assert_array_equal(labels, [3, 1, 1, 0, 3, 2])


def test_warps_keep_the_ink_and_the_first_changes_nothing(load_example, rng):
    warps = load_example("deep_compression").warps(count=20)
    images = np.zeros((1, 28, 28), "float32")
    images[:, 8:20, 8:20] = rng.random((12, 12))
    flat = images.reshape(1, 784)
    np.testing.assert_array_equal(flat @ warps[0], flat)
    for warp in warps[1:]:
        assert 0.6 < (flat @ warp).sum() / flat.sum() < 1.6
        assert np.abs(flat @ warp - flat).max() > 0.05
