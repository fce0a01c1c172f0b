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
    assert rows.pop("keras").startswith("tf_keras") and rows.pop("epochs") == [1, 1]
    assert rows.pop("limit") == 512 and rows.pop("until") is False
    assert len(rows) == 1 + 5 + 4
    assert rows["dense"]["zeros %"] < 1
    for name, row in rows.items():
        if name != "dense":
            share = 99.0 if "by layer" in name else 90.0
            assert row["zeros %"] == pytest.approx(share, abs=0.1), name
        assert 0 <= row["robust %"] <= row["clean %"] <= 100
    # Rows in the file are not made again.
    assert run("robust_pruning.py", *given, TF_USE_LEGACY_KERAS="1").stdout == ""
    # And those of other settings are not taken for them.
    done = run("robust_pruning.py", *given[:-2], "--limit", 256, "--output", path)
    assert done.returncode == 2 and "holds rows of other settings" in done.stderr


def test_until(run, tmp_path):
    path = tmp_path / "rows.json"
    given = ["--limit", 400, "--epochs", 1, 1, "--until", "--rounds", 2, "--output", path]
    done = run("robust_pruning.py", *given, TF_USE_LEGACY_KERAS="0")
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(path.read_text())
    for name in ("by layer", "global", "units, APoZ"):
        row = rows[name]
        assert row["stopped"] in ("budget", "sparsity", "nothing left", "rounds"), name
        assert 1 <= len(row["rounds"]) <= 2 and "zeros %" in row
        inside = [each for each in row["rounds"] if each["inside"]]
        assert all(each["value"] >= row["reference"] - 0.02 for each in inside)
    assert rows["in a recipe"]["stage"]["name"]
