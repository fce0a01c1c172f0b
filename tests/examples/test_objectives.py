"""The example runs with every objective, and the table says what was measured."""

import importlib.util
import json
import pathlib

import pytest

import keras_robust as kr

pytestmark = pytest.mark.once

PATH = pathlib.Path(__file__).parents[2] / "examples" / "objectives.py"


@pytest.fixture
def example():
    spec = importlib.util.spec_from_file_location("objectives_example", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_objective_is_measured(example):
    data = kr.data.load("embedded", limit=128)
    measured = {type(o).__name__ for o in example.objectives(data.train).values()}
    # Distil needs a teacher: kr.Distillation.
    abstract = {"Objective", "Carrying", "Outcome", "Step", "Distil"}
    assert measured >= {*kr.objectives.__all__} - abstract


def test_quick(example, tmp_path, capsys):
    only = ["plain", "Madry", "Free(4)"]
    made = example.main(["--quick", "--output", str(tmp_path / "rows.json"), "--only", *only])
    assert list(made) == ["plain", "Madry", "Madry, average (EMA)", "Free(4)"]
    assert json.loads((tmp_path / "rows.json").read_text()) == {k: list(v) for k, v in made.items()}
    for clean, pgd, margin, seconds in made.values():
        assert 0 <= max(pgd, margin) <= clean + 2 and clean > 15 and seconds > 0
    assert "PGD-20 %" in capsys.readouterr().out
