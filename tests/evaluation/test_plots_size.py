"""The front of size against accuracy, and its picture."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from keras_robust.evaluation import pareto_front, size_plot

pytestmark = pytest.mark.once

POINTS = {
    "float": {"bytes": 400_000, "clean": 0.9, "robust": 0.6, "group": ".tflite"},
    "int8": {"bytes": 100_000, "clean": 0.88, "robust": 0.61, "clean_interval": (0.85, 0.91)},
    "binary": {"bytes": 20_000, "clean": 0.6, "robust": 0.3},
}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 5)), min_size=1, max_size=8))
def test_front_is_what_nothing_beats(pairs):
    points = {str(i): {"bytes": size, "clean": y / 5} for i, (size, y) in enumerate(pairs)}

    def beats(a, b):
        better = a["bytes"] < b["bytes"] or a["clean"] > b["clean"]
        return a["bytes"] <= b["bytes"] and a["clean"] >= b["clean"] and better

    front = pareto_front(points, "clean")
    assert set(front) == {
        name
        for name, point in points.items()
        if not any(beats(other, point) for other in points.values())
    }
    sizes = [points[name]["bytes"] for name in front]
    assert sizes == sorted(sizes)


def test_fronts_differ_by_accuracy():
    assert pareto_front(POINTS, "clean") == ["binary", "int8", "float"]
    assert pareto_front(POINTS, "robust") == ["binary", "int8"]


def test_picture_has_a_panel_for_each_accuracy(tmp_path):
    two = np.asarray(Image.open(size_plot(POINTS, tmp_path / "two.png", "Sizes")))
    one = size_plot(POINTS, tmp_path / "one.png", "Sizes", panels={"robust": "robust (%)"})
    one = np.asarray(Image.open(one))
    assert two.shape[0] == one.shape[0] and two.shape[1] == 2 * one.shape[1]
    # The front's blue is in both halves.
    blue = np.all(two[..., :3] == (0, 0x72, 0xB2), axis=-1)
    assert blue[:, : one.shape[1]].sum() > 300 and blue[:, one.shape[1] :].sum() > 300


def test_vector_picture_holds_every_name(tmp_path):
    text = size_plot(POINTS, tmp_path / "plot.svg", "Sizes").read_text()
    assert all(text.count(f">{name}<") == 2 for name in POINTS)
    assert all(part in text for part in (">.tflite<", ">on the front<", ">95% interval<"))


def test_what_is_far_below_stands_on_the_lower_edge(tmp_path):
    broken = {"bytes": 300_000, "clean": 0.1, "robust": 0.45}
    points = {**POINTS, "int4": {**POINTS["int8"], "bytes": 90_000}, "broken": broken}
    del points["binary"]
    text = size_plot(points, tmp_path / "plot.svg", "Sizes").read_text()
    # Far below in clean accuracy alone, whose axis begins near the others.
    assert text.count(">broken: 10.0 ↓<") == text.count(">broken<") == 1
    assert ">40<" not in text and ">85<" in text
    # What is on the front has its place, however bad it is.
    small = {**points, "broken": {**broken, "bytes": 10_000}}
    assert "↓" not in size_plot(small, tmp_path / "plot.svg", "Sizes").read_text()


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ({}, "`points` is empty"),
        ({"a": {"bytes": 3, "clean": 0.5}}, r"`points\['a'\]` lacks \['robust'\]"),
        ({"a": {"bytes": 0, "clean": 0.5, "robust": 0.5}}, "must have bytes > 0, got 0"),
        ({"a": {"bytes": 3, "clean": 50, "robust": 0.5}}, r"in \[0, 1\], got {'clean': 50}"),
    ],
)
def test_errors(points, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        size_plot(points, tmp_path / "plot.png", "Sizes")
    assert not (tmp_path / "plot.png").exists()
