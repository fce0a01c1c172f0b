"""Names stand beside their points: inside the axes, on no other name, on no line."""

import itertools

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from keras_robust.evaluation._plots_labels import label_points

pytestmark = pytest.mark.once


@pytest.fixture
def axes():
    figure = Figure(figsize=(6, 4))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 10)
    return axes


def boxes(axes):
    found, renderer = {}, axes.figure.canvas.get_renderer()
    for text in axes.texts:
        text.update_positions(renderer)
        # Of the words alone, without the line to the point.
        found[text.get_text()] = Text.get_window_extent(text, renderer)
    return found


def test_crowded_names_do_not_overlap(axes):
    places = [(5 + 0.1 * (i % 3), 5 + 0.2 * i, f"a name of number {i}", "red") for i in range(8)]
    label_points(axes, places)
    found = boxes(axes)
    assert len(found) == 8
    for one, other in itertools.combinations(found.values(), 2):
        assert not one.overlaps(other)
    for box in found.values():
        assert axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1


def test_names_keep_off_lines(axes):
    # Beside the point is a line on the right; the name goes to another side.
    label_points(axes, [(5, 5, "somewhere", "red")], lines=[((5, 5), (9, 5))])
    (box,) = boxes(axes).values()
    level = axes.transData.transform((5, 5))[1]
    right = axes.transData.transform((5, 5))[0]
    assert box.x1 < right or box.y0 > level or box.y1 < level


def test_long_names_are_cut(axes):
    label_points(axes, [(5, 5, "x" * 40, "red")], longest=10)
    assert axes.texts[0].get_text() == "x" * 9 + "…"
