import numpy as np
import pytest
from matplotlib.figure import Figure

from keras_robust.data import CORRUPTIONS
from keras_robust.evaluation._plots_corruption import _draw_families, _rows, corruption_plot

pytestmark = pytest.mark.once

ERRORS = {name: [0.02 * (i + s) for s in range(1, 6)] for i, name in enumerate(CORRUPTIONS)}


def report(*errors):
    return {
        "artifacts": {
            f"<m{i}>": {"corruptions": {"errors": each, "mean_error": 0.1}} if each else {}
            for i, each in enumerate(errors)
        }
    }


def test_two_figures_name_every_corruption_and_family():
    page = corruption_plot(report(ERRORS, None, ERRORS))
    assert page.count("<figure>") == 2
    for name in CORRUPTIONS:
        assert f">{name.replace('_', ' ')}</text>" in page
    for family in ("noise", "blur", "weather", "digital"):
        assert page.count(f">{family}</text>") == 2
    assert ">all</text>" in page
    assert "&lt;m2&gt;" in page and "m1" not in page and "<m0>" not in page


def test_rows_hold_the_mean_over_the_severities():
    rows, series = _rows({"weather": ["fog", "snow"]}, {2: {"fog": [0.1, 0.3]}})
    assert rows == ["# weather", "fog", "snow"]
    assert series == {2: [None, pytest.approx(0.2), None]}


def test_bars_are_means_and_lines_reach_from_mild_to_severe():
    axes = Figure().add_subplot()
    found = {"fog": [0.1, 0.2, 0.3, 0.4, 0.5], "snow": [0.3, 0.4, 0.5, 0.6, 0.7], "jpeg": [0.0] * 5}
    _draw_families(axes, {"weather": ["fog", "snow"], "digital": ["jpeg"]}, {0: found})
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches], [40, 0, 80 / 3])
    segments = [c.get_segments()[0][:, 1].tolist() for c in axes.collections]
    np.testing.assert_allclose(segments[0], [20, 60])
    assert [t.get_text() for t in axes.get_xticklabels()] == ["weather", "digital", "all"]


@pytest.mark.parametrize("count", [1, 3, 12])
def test_bars_of_a_family_never_touch_the_next(count):
    axes = Figure().add_subplot()
    _draw_families(axes, {"noise": ["a"], "blur": ["b"]}, dict.fromkeys(range(count), {"a": [0.5]}))
    edges = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches]
    assert min(left for left, _ in edges) >= -0.41
    groups = [e for e in edges if e[0] < 0.5]
    assert max(right for _, right in groups) <= 0.41


def test_an_unknown_corruption_is_other():
    page = corruption_plot(report({"sandstorm": [0.1] * 5}))
    assert ">other</text>" in page and ">noise</text>" not in page


def test_nothing_to_show():
    assert corruption_plot(report(None)) == corruption_plot({"artifacts": {}}) == ""
