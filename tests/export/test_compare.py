import numpy as np
import pytest

from keras_robust.export._compare import ExportMismatch, compare


def test_numbers_by_hand():
    source = np.array([[4.0, 0.0], [0.0, 4.0], [0.1, 0.0], [4.0, -4.0]])
    written = source + np.array([[0.0, 0.2], [0.0, 0.0], [-0.2, 0.0], [0.0, 0.0]])
    got = compare(source, written, "float", 0.06)
    assert got["max_abs_error"] == pytest.approx(0.2)
    assert got["relative_error"] == pytest.approx(0.2 / 4.0)
    assert got["agreement"] == 0.75  # The third is a tie that flipped.
    rounded = compare(source, written, "int8", None)
    rms = np.sqrt((0.04 + 0.04) / 8) / np.sqrt((16 * 4 + 0.01) / 8)
    assert rounded["relative_error"] == pytest.approx(rms)


def test_ties_may_turn_and_clear_predictions_may_not():
    source = np.tile([[1.0, 0.0]], (20, 1))
    turned = source.copy()
    turned[:3] = [0.45, 0.55]  # 3 of 20: an error small enough, but too many flips.
    with pytest.raises(ExportMismatch, match=r"85.0% of the 20 with a clear margin"):
        compare(source, turned, "int8", 0.5)
    near = np.tile([[1.0, 0.95]], (20, 1))
    assert compare(near, near[:, ::-1], "int8", None)["agreement"] == 0.0


def test_bad_numbers():
    good = np.ones((4, 3)) * [1.0, 2.0, 3.0]
    with pytest.raises(ExportMismatch, match="largest difference of logits inf"):
        compare(good, np.where(good == 2.0, np.nan, good), "float", None)
    with pytest.raises(ExportMismatch, match="itself returns NaN"):
        compare(np.full((4, 3), np.nan), good, "float", None)
    with pytest.raises(ExportMismatch, match=r"returns shape \(4, 2\), its source \(4, 3\)"):
        compare(good, good[:, :2], "float", None)
    assert compare(good * 0, good * 0, "int8", None)["relative_error"] == 0.0
