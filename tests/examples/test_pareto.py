"""The example runs, its sizes are its files', and rows that are there are not made again."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

import keras_robust as kr
from keras_robust._keras import LEGACY
from keras_robust.evaluation import pareto_front

pytestmark = pytest.mark.skipif(not LEGACY, reason="the example compresses with tf_keras")


def test_quick(load_example, tmp_path, monkeypatch, capsys):
    example = load_example("pareto")
    arguments = ["--quick", "--output", str(tmp_path)]
    results = example.main(arguments)["quick"]
    rows, folder = results["rows"], tmp_path / "quick"
    assert list(rows) == list(example.QUICK_ROWS)
    for name, row in rows.items():
        file = name.replace(", ", "-").replace(" ", "_")
        for kind in ("tflite", "krz"):
            path = folder / f"{file}.{kind}"
            assert row[kind] == (path.stat().st_size if path.exists() else None)
        assert row["bytes"] == min(row[kind] for kind in ("tflite", "krz") if row[kind])
        assert row["robust"] <= min(row["attacks"].values()) <= row["clean"]
    assert rows["float16"]["krz"] is None
    assert rows["pruned 90%, 16 values"]["krz"] < rows["pruned 90%"]["krz"] / 4
    # Little training on little data, but far from the 10% of chance.
    assert rows["dense"]["clean"] > 0.5 and rows["pruned 90%, 16 values"]["robust"] > 0.2

    weights = kr.compress.size_report(folder / "pruned_90%-16_values.krz").weights
    kernels = [row for row in weights if row["weight"] == "kernel"]
    zeros = sum(row["sparsity"] * row["parameters"] for row in kernels)
    assert zeros >= 0.899 * sum(row["parameters"] for row in kernels)
    assert max(row["distinct"] for row in kernels) <= 17

    assert json.loads((folder / "results.json").read_text()) == json.loads(json.dumps(results))
    assert results["fronts"] == {key: pareto_front(rows, key) for key in ("clean", "robust")}
    assert Image.open(folder / "pareto.png").size == (2400, 1056)
    table = capsys.readouterr().out.rpartition("front\n")[2].splitlines()
    assert len(table) == 1 + len(rows) and "robust %" in table[0]
    for name, row in rows.items():
        shown = next(text for text in table if text.startswith(f"{name}  "))
        assert f"{row['bytes']:,}" in shown
        assert shown.endswith("r") == (name in results["fronts"]["robust"])
    table = (folder / "table.md").read_text().splitlines()
    assert len(table) == 2 + len(rows) and len({text.count("|") for text in table}) == 1

    monkeypatch.setattr(example.World, "write", None)
    assert example.main(arguments)["quick"]["rows"] == json.loads(json.dumps(rows))


@pytest.mark.slow
def test_rows_made_in_ways_of_their_own(load_example, tmp_path):
    example = load_example("pareto")
    few = dataclasses.replace(example.QUICK, steps=(15, 3), lasso=5.0)
    world, plans = example.World(few, tmp_path), example.plans()

    def made(name):
        plan = plans[name]
        model = plan.make(world, world.model(plan.parent) if plan.parent else None)
        return world.write(name, model, plan.mode)

    dense = made("dense")
    for name in ("ticket of 10%", "lasso", "low rank"):
        assert made(name)["krz"] < dense["krz"] / 2.5, name
    assert made("int8, one layer float")["mode"] == "int8"
    assert made("int16x8 after training")["krz"] is None

    kernels = [layer.kernel for layer in world.model("ticket of 10%").layers if layer.weights]
    zeros = sum(np.sum(np.asarray(kernel) == 0) for kernel in kernels)
    assert 0.89 < zeros / sum(np.size(kernel) for kernel in kernels) < 0.9
    sizes = [np.shape(world.model(name).get_layer("dense1").kernel) for name in ("dense", "lasso")]
    assert sizes[1][0] < sizes[0][0] and sizes[1][1] < sizes[0][1]
