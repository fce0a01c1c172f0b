import numpy as np
import pytest
from matplotlib.figure import Figure

from keras_robust._marks import mark_of
from keras_robust.evaluation._plots_rows import draw_rows, rows_inches

pytestmark = pytest.mark.once


@pytest.fixture
def axes():
    return Figure().add_subplot()


def test_marks_stand_at_their_shares(axes):
    names = ["# family", "a", "b"]
    draw_rows(axes, names, {0: [None, 0.25, 1.0], 3: [None, None, 0.5]}, "accuracy (%)")
    first, second = axes.lines
    assert first.get_xydata().tolist() == [[25, 1], [100, 2]]
    assert second.get_xydata().tolist() == [[50, 2]]
    assert (first.get_color(), second.get_color()) == (mark_of(0).color, mark_of(3).color)
    assert first.get_markersize() > second.get_markersize()  # equal points stay visible
    (line,) = axes.collections  # from the lowest mark to the highest, where there are two
    assert line.get_segments()[0].tolist() == [[50, 2], [100, 2]]
    assert axes.get_xlim() == (0, 100) and axes.get_ylim() == (2.5, -0.5)
    assert [t.get_text() for t in axes.get_yticklabels()] == ["family", "a", "b"]
    assert [t.get_fontweight() for t in axes.get_yticklabels()] == ["bold", "normal", "normal"]


def test_long_names_are_cut_where_they_are_alike(axes):
    names = [f"a very long name of a class {i}" for i in range(12)]
    draw_rows(axes, names, {0: [0.5] * 12}, "x")
    shown = [t.get_text() for t in axes.get_yticklabels()]
    assert len(set(shown)) == 12 and max(map(len, shown)) <= 18


@pytest.mark.parametrize(("most", "last"), [(0.07, 20), (0.41, 50), (0.93, 100), (1.0, 100)])
def test_the_axis_reaches_as_far_as_it_needs_to(axes, most, last):
    draw_rows(axes, ["a"], {0: [most]}, "error (%)", whole=False)
    assert axes.get_xlim() == (0, last)
    assert max(axes.get_xticks()) <= last and len(axes.get_xticks()) >= 3


def test_height_grows_with_the_rows():
    heights = [rows_inches(rows)[1] for rows in (1, 10, 20)]
    assert np.all(np.diff(heights) > 1) and {rows_inches(r)[0] for r in (1, 20)} == {5.0}
