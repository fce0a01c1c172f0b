"""The example runs: from a random start one step trains, and stronger attacks find more."""

import numpy as np
import pytest

pytestmark = pytest.mark.once


def test_quick(load_example, capsys):
    example = load_example("fast", "mnist.npz")
    row = example.main(["--quick", "--rows", "Fast, seed 0"])["Fast, seed 0"]
    assert row["clean"] > 50
    assert row["AutoAttack"] <= row["PGD-50"] + 10 and row["PGD-20"] < row["clean"]
    printed = capsys.readouterr().out
    assert f"{row['clean']:.1f}" in printed and "82.93" in printed


def test_the_rate_rises_and_falls(load_example):
    triangle = load_example("fast").Triangle(2.0, 100)
    rates = [float(triangle(step)) for step in (0, 39, 69, 99)]
    np.testing.assert_allclose(rates, [0.05, 2.0, 1.0, 2e-4], rtol=1e-4)
