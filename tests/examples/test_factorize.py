"""The example runs, and its small models are as small as they say."""

import json

import pytest

pytestmark = pytest.mark.once


def test_quick(load_example, tmp_path, capsys):
    example = load_example("factorize")
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
