"""The example runs, and more decay means smaller kernels and a lower temperature."""

import json

import numpy as np
import pytest

pytestmark = pytest.mark.once


def test_quick(load_example, tmp_path, capsys):
    example = load_example("weight_decay", "mnist.npz")
    made = example.main(["--quick", "--output", str(tmp_path / "rows.json")])
    assert json.loads((tmp_path / "rows.json").read_text()) == made
    low, high = made["low decay"], made["high decay"]
    assert low["test_error"] < 30 and high["test_error"] < 30
    assert np.all(np.array(high["weights_rms"]) < low["weights_rms"])
    assert high["temperature"] < low["temperature"]
    assert low["reached"] >= 7 and high["reached"] >= 7 and low["l2"] > 0.3
    assert "1.2 5.75" in capsys.readouterr().out


def test_digits_come_in_turn(load_example):
    example = load_example("weight_decay")
    y = np.arange(100)[::-1] % 10
    x, picked = example.one_after_the_other(np.arange(100), y, 20)
    assert picked.tolist() == [*range(10)] * 2
    np.testing.assert_array_equal(y[x], picked)


def test_other_numbers_of_images_are_refused(load_example, capsys):
    with pytest.raises(SystemExit):
        load_example("weight_decay").main(["--images", "14"])
    assert "14 is no multiple of 10" in capsys.readouterr().err
