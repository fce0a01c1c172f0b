"""The example runs, its sizes are its files', and rows that are there are not made again."""

import json

import pytest

from keras_robust._keras import LEGACY

pytestmark = pytest.mark.skipif(not LEGACY, reason="the example compresses with tf_keras")


def test_quick(load_example, tmp_path, monkeypatch, capsys):
    example = load_example("quantize")
    arguments = ["--quick", "--output", str(tmp_path)]
    rows = example.main(arguments)
    assert list(rows) == ["files", "clusters", "layers", "spared"]
    files = rows["files"]["all"]
    assert list(files) == list(example.QUICK.files)
    for name, row in files.items():
        path = tmp_path / f"{name.replace(', ', '-').replace(' ', '_')}.tflite"
        assert row["bytes"] == path.stat().st_size
        assert 0.2 < row["robust"] <= row["clean"]
    assert files["int8"]["bytes"] < files["float"]["bytes"] / 3.8

    plain, channels = rows["clusters"].values()
    for end in ("start", "tuned"):
        # 32 + 64 codebooks of 8 values, not 2.
        assert channels[end]["bytes"] > plain[end]["bytes"] + 4 * 6 * 90
        assert 0.2 < plain[end]["robust"] <= plain[end]["clean"]

    (found,) = rows["layers"].values()
    worst = min(found["layers"], key=lambda row: row["robust"])["layer"]
    spared = rows["spared"].pop(f"int8, {worst} float")
    assert all(row["bytes"] > files["int8, trained"]["bytes"] for row in spared.values())
    assert list(rows["spared"]) == ["4 values", f"4 values, {worst} 16"]
    few, more = rows["spared"].values()
    assert few["bytes"] < more["bytes"] < files["int8"]["bytes"] / 2

    printed = capsys.readouterr().out
    assert all(f"\n{title}\n" in printed for title in ("Files", "Clusters"))
    for name, row in (files | spared | rows["spared"]).items():
        line = next(text for text in printed.splitlines() if text.startswith(f"{name}  "))
        assert f"{row['bytes']:,}" in line and f"{100 * row['robust']:.1f}" in line

    kept = json.loads((tmp_path / "rows.json").read_text())
    for name in ("measure_files", "packed", "sensitivity", "trained"):
        monkeypatch.setattr(example.Lab, name, None)
    assert json.loads(json.dumps(example.main(arguments))) == kept
