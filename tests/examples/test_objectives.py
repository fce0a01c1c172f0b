"""The example runs with every objective, and the table says what was measured."""

import argparse
import json
import pathlib

import numpy as np
import pytest

import keras_robust as kr
from keras_robust._keras import keras

pytestmark = pytest.mark.once


@pytest.fixture
def example(load_example):
    return load_example("objectives")


def test_every_objective_is_measured(example):
    data = kr.data.load("embedded", limit=128)
    measured = {type(o).__name__ for o in example.objectives(data).values()}
    # Distil needs a teacher: kr.Distillation.
    abstract = {"Objective", "Carrying", "Wrapping", "Outcome", "Step", "Distil"}
    assert measured >= {*kr.objectives.__all__} - abstract


DOCS = pathlib.Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("path", sorted(DOCS.glob("objectives_*.json")), ids=lambda p: p.stem)
def test_the_tables_are_the_rows_measured(example, path):
    lines = (DOCS / "objectives.md").read_text().splitlines()
    rows = json.loads(path.read_text())
    assert [*rows][:4] == ["plain", "Madry", *(f"Madry, {kind}" for kind in example.AVERAGES)]
    for name, row in rows.items():
        cells = [f"{value:.1f}" for value in row]
        assert "| " + " | ".join([name, *cells]) + " |" in lines
        if path.stem.endswith("fashion_mnist"):
            told = [line.split() for line in example.__doc__.splitlines()]
            assert [*name.split(), *cells[:-1]] in told


def test_quick(example, tmp_path, capsys):
    only = ["plain", "Madry", "Fast, guarded", "Free(4)"]
    made = example.main(["--quick", "--output", str(tmp_path / "rows.json"), "--only", *only])
    averaged = ["Madry, average (EMA)", "Madry, average (SWA)"]
    assert list(made) == ["plain", "Madry", *averaged, *only[2:]]
    assert json.loads((tmp_path / "rows.json").read_text()) == made
    for clean, pgd, margin, autoattack, worst, seconds, minutes in made.values():
        assert 0 <= max(pgd, margin) <= clean + 2 and clean > 15
        assert 0 <= worst <= min(clean, pgd, margin)
        assert autoattack is None and 0 < seconds <= 60 * minutes + 0.6
    printed = capsys.readouterr().out
    assert "worst case %" in printed and all(name in printed for name in averaged)
    # Rows in the file stay, whatever is asked for.
    kept = made | {"plain": [1.5] * 7}
    (tmp_path / "rows.json").write_text(json.dumps(kept))
    again = example.main(["--quick", "--output", str(tmp_path / "rows.json"), "--only", "plain"])
    assert again == kept and "1.5" in capsys.readouterr().out


def test_autoattack_and_the_worst_case_see_the_first_images(example):
    """The first image withstands nothing, the third is wrong without any attack."""
    rng, weights = np.random.default_rng(0), np.float32([[1, -2], [3, 1]])
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.set_weights([weights, np.float32([-0.5, 0.5])])
    x = rng.uniform(size=(3, 2)).astype("float32")
    y = np.argmax(model(x), 1)
    y[2] = 1 - y[2]
    margins = np.abs(model(x).numpy() @ [1, -1])[:2] / np.abs(weights @ [1, -1]).sum()
    order = [*np.argsort(margins), 2]
    setting = example.Setting(eps=float(margins.mean()), epochs=1, autoattack=2)
    clean, pgd, margin, autoattack, worst = example.measured(model, (x[order], y[order]), setting)
    assert (clean, pgd, margin) == (66.7, 33.3, 33.3) and (autoattack, worst) == (50.0, 50.0)


def test_each_data_set_has_a_setting(example):
    parser = argparse.Namespace(
        data="some/cifar10_subset.npz", quick=False, epochs=3, steps=None, float32=True
    )
    setting = example.setting_of(argparse.Namespace(**vars(parser), autoattack=7))
    assert (setting.eps, setting.epochs, setting.autoattack) == (8 / 255, 3, 7)
    assert (setting.steps, setting.attack_dtype) == (7, None)
    with pytest.raises(SystemExit, match="no setting for 'gtsrb'"):
        example.setting_of(argparse.Namespace(**vars(parser) | {"data": "gtsrb"}, autoattack=7))
