"""The latency benchmark runs, and its result says what was measured."""

import json

import pytest

pytestmark = pytest.mark.once


def test_quick(run, tmp_path):
    path = tmp_path / "latency.json"
    done = run("latency.py", "--quick", "--output", path)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(path.read_text())
    assert result["environment"]["cpu"] and str(tmp_path) not in path.read_text()
    rows = {row["file"]: row for row in result["rows"]}
    dense, small = rows["dense"], rows["neurons pruned"]
    assert dense["ratio"]["median"] == 1.0 and dense["sparsity"] < 0.01
    assert small["parameters"] < 0.3 * dense["parameters"]
    assert small["bytes"] < 0.3 * dense["bytes"] and rows["int8"]["bytes"] < 0.3 * dense["bytes"]
    sparse = rows["zeros, stored sparsely"]
    assert sparse["sparsity"] == pytest.approx(0.9, abs=0.01)
    # The weights are in the file, and the zeros are not.
    assert 0.1 * dense["bytes"] < sparse["bytes"] < 0.4 * dense["bytes"]
    assert all(row["cpu_ms"]["median"] > 0 for row in rows.values())
    assert "| lenet5 | int8, neurons pruned |" in done.stdout
