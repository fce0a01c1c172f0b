"""The benchmark runs without ai-edge-quantizer, and its files are those of keras_robust."""

import json

import pytest

pytestmark = pytest.mark.once


def test_quick(run, tmp_path):
    path = tmp_path / "few_bits.json"
    done = run("few_bits.py", "--quick", "--output", path)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(path.read_text())
    assert str(tmp_path) not in path.read_text()
    for network in ("dense", "convolutional"):
        rows = {row["file"]: row for row in result["rows"] if row["network"] == network}
        whole, int8, packed = (rows[name] for name in ("float32", "int8", "packed"))
        assert whole["error"] < 1e-4 and 0 < int8["error"] < 0.1
        assert int8["bytes"] < whole["bytes"] / 3 and packed["bytes"] < whole["bytes"] / 20
        assert whole["us"] > 0 and whole["litert_us"] is None
    assert "| dense | int8 |" in done.stdout
