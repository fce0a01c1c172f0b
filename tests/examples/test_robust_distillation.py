"""The example runs, and a row is what its network does."""

import json

import numpy as np
import pytest

pytestmark = pytest.mark.once


def test_quick(load_example, tmp_path, capsys):
    example = load_example("robust_distillation", "fashion_mnist.npz")
    only = ["--quick", "--output", str(tmp_path), "--only", "Madry", "RSLAD", "born again"]
    rows = example.main(only)
    assert list(rows) == ["teacher", "Madry", "RSLAD", "born again"]
    assert json.loads((tmp_path / "rows_2.json").read_text()) == rows
    # What teaches itself was trained first.
    assert (tmp_path / "TRADES(6)_2.weights.h5").exists()
    assert rows["teacher"][0] > 50 and rows["teacher"][1] > 15
    for clean, pgd, margin, autoattack, seconds in rows.values():
        assert 0 <= max(pgd, margin) <= clean + 2 and autoattack is None and seconds > 0
    bench = example.Bench(example.QUICK, tmp_path)
    networks = [bench.student(name, None) for name in ("Madry", "RSLAD", "TRADES(6)")]
    x, y = bench.test
    answers = [np.argmax(model(x), axis=1) for model in networks]
    for name, answer in zip(("Madry", "RSLAD"), answers):
        assert round(100 * float(np.mean(answer == y)), 1) == rows[name][0]
    assert len({model.get_weights()[0].tobytes() for model in networks}) == 3
    assert "AutoAttack %" in capsys.readouterr().out
    # What is there is not made again.
    kept = rows | {"Madry": [1.5] * 5}
    (tmp_path / "rows_2.json").write_text(json.dumps(kept))
    assert example.main(only) == kept and "1.5" in capsys.readouterr().out
