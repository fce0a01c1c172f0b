"""The example runs, keeps its rows, and the control differs from the ticket."""

import json

import pytest

from keras_robust._keras import LEGACY

pytestmark = pytest.mark.skipif(LEGACY, reason="the same code, tested under Keras 3")


def test_quick(load_example, tmp_path, monkeypatch, capsys):
    example = load_example("lottery_ticket", "mnist.npz")
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
