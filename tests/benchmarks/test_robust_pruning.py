"""The benchmark of pruning's ways runs, goes on where it stopped, and prunes as far as it says."""

import json

import pytest

pytestmark = pytest.mark.once


def test_quick(run, tmp_path):
    path = tmp_path / "rows.json"
    given = ["--limit", 512, "--epochs", 1, 1, "--sparsity", 0.9, "--output", path]
    done = run("robust_pruning.py", *given, TF_USE_LEGACY_KERAS="1")
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(path.read_text())
    assert rows.pop("keras").startswith("tf_keras") and len(rows) == 1 + 5 + 4
    assert rows["dense"]["zeros %"] < 1
    for name, row in rows.items():
        if name != "dense":
            share = 99.0 if "by layer" in name else 90.0
            assert row["zeros %"] == pytest.approx(share, abs=0.1), name
        assert 0 <= row["robust %"] <= row["clean %"] <= 100
    # Rows in the file are not made again.
    assert run("robust_pruning.py", *given, TF_USE_LEGACY_KERAS="1").stdout == ""
