"""The benchmark runs without ai-edge-quantizer, and its files are those of keras_robust."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.once

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


def test_quick(tmp_path):
    path = tmp_path / "few_bits.json"
    done = subprocess.run(
        [sys.executable, str(FOLDER / "few_bits.py"), "--quick", "--output", str(path)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent)},
    )
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
