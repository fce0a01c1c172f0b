"""The example runs, and its rows hold together."""

import pytest

from keras_robust._keras import LEGACY


@pytest.mark.skipif(LEGACY, reason="takes 20 seconds: once is enough")
def test_quick(load_example, capsys):
    example = load_example("prune_neurons", "mnist.npz")
    rows = example.main(["--quick"])

    dense = rows["dense"]
    assert (dense["filters"], dense["units"], dense["weights"]) == ("20-50", 500, 431080)
    half = rows["APoZ, half at once"]
    assert (half["filters"], half["units"]) == ("10-25", 250)
    for name in ("APoZ, 3 rounds", "APoZ, half at once", "adversarial, half"):
        assert rows[name]["weights"] < 0.8 * dense["weights"]
        assert rows[name]["bytes"] < 0.8 * dense["bytes"]
        assert rows[name]["error"] < 60
    assert half["latency_us"] < dense["latency_us"]
    assert rows["adversarial, dense"]["robust"] is not None and dense["robust"] is None
    printed = capsys.readouterr().out
    assert ".8 % 5-19" in printed and "PGD-20 %" in printed
