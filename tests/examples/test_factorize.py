"""The example runs, and its small models are as small as they say."""

import importlib.util
import json
import pathlib

import pytest

pytestmark = pytest.mark.once

PATH = pathlib.Path(__file__).parents[2] / "examples" / "factorize.py"


def test_quick(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("factorize_example", PATH)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    rows = example.main(["--quick", "--output", str(tmp_path / "rows.json")])
    assert json.loads((tmp_path / "rows.json").read_text()) == rows
    assert list(rows) == ["trained", "budget 0.25", "budget 0.25, fine-tuned, penalty", "separated"]
    trained, cut, tuned, separated = rows.values()
    assert cut["bytes"] == pytest.approx(0.25 * trained["bytes"], rel=0.05)
    assert tuned["multiply_adds"] == cut["multiply_adds"] < trained["multiply_adds"]
    assert separated["multiply_adds"] < 0.5 * trained["multiply_adds"]
    assert set(tuned["condition"]) == {"conv1", "conv2", "dense1", "logits"}
    assert trained["clean"] > 15 and tuned["clean"] >= tuned["robust"] - 2
    assert "mult-adds" in capsys.readouterr().out
