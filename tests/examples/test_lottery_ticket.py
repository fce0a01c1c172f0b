"""The example runs, keeps its rows, and the control differs from the ticket."""

import importlib.util
import json
import os
import pathlib

import pytest

from keras_robust._keras import LEGACY

ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(os.environ.get("KERAS_ROBUST_DATA", ROOT / "../shared/data"))

pytestmark = [
    pytest.mark.skipif(LEGACY, reason="the same code, tested under Keras 3"),
    pytest.mark.skipif(not (DATA / "mnist.npz").exists(), reason="MNIST is not at hand"),
]


def test_quick(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_ROBUST_DATA", str(DATA))
    path = ROOT / "examples" / "lottery_ticket.py"
    spec = importlib.util.spec_from_file_location("lottery_ticket", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    arguments = ["--quick", "--output", str(tmp_path)]
    rows = example.main(arguments)
    kinds = ["dense", "ticket 80.0%", "new weights 80.0%"]
    robust = ["robust dense", "robust ticket 60.1%", "robust new weights 60.1%"]
    assert list(rows) == [*kinds, *robust, "fine-tuned", "Scratch-E", "Scratch-B"]
    for name in kinds:
        assert rows[name][0] in (50, 100) and 75 < rows[name][2] < 97, name
    for name in robust:
        stop, clean, attacked = rows[name]
        assert stop in (20, 40) and 10 < attacked < clean, name
    assert [rows[name][0] for name in ("fine-tuned", "Scratch-E", "Scratch-B")] == [1, 1, 2]
    assert "PGD-20 %" in capsys.readouterr().out
    written = (tmp_path / "rows.json").read_text()

    def fail(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(example.keras.Model, "fit", fail)
    assert set(example.main(arguments)) == set(rows)
    assert json.loads(written).keys() == rows.keys()
