"""The benchmark of stored logits runs, and its kept result is that of the documentation."""

import json
import pathlib

import pytest

pytestmark = pytest.mark.once

ROOT = pathlib.Path(__file__).parents[2]


def test_quick(run, tmp_path):
    done = run("distillation.py", "--quick", "--output", tmp_path / "found.json")
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert len(rows) == 6
    for row in rows:
        assert row["cpu_ms"]["median"] > 0
        assert (row["ratio"]["median"] == 1) == (row["way"] == "the student alone")
    assert "logits from disk" in done.stdout


def test_the_table_is_that_of_the_result():
    result = json.loads((ROOT / "benchmarks/results/distillation_keras3.json").read_text())
    text = (ROOT / "docs/distillation.md").read_text()
    pairs = dict.fromkeys(row["pair"] for row in result["rows"])
    for pair in pairs:
        of_pair = [row for row in result["rows"] if row["pair"] == pair]
        cells = [f"{row['cpu_ms']['median']:.1f} ({row['ratio']['median']:.2f})" for row in of_pair]
        assert f"| {pair} | {' | '.join(cells)} |" in text
