"""Curves by name."""

import re

import numpy as np
import pytest

from keras_robust.analysis._lines import lines

pytestmark = pytest.mark.once

LABELS = {"x_label": "across", "y_label": "up"}


def words(path):
    found = re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text())
    return [word.replace("−", "-") for word in found]


def test_curves_axes_and_level_are_named(tmp_path):
    curves = {"a": ([1, 2, 3], [0.5, 0.6, 0.9]), "b": (np.arange(1, 3), np.array([0.1, 0.2]))}
    path = lines(curves, tmp_path / "l.svg", "Title", **LABELS, level=0.3, level_label="limit")
    found = words(path)
    assert {"a", "b", "across", "up", "Title", "limit"} <= set(found)
    # Whole numbers get whole ticks.
    assert {"1", "2", "3"} <= set(found) and "1.5" not in found


def test_limits_and_fractions(tmp_path):
    path = lines(
        {"a": ([0.0, 0.5], [1.0, 2.0])}, tmp_path / "l.svg", "t", **LABELS,
        y_limits=(0, 4), points=False,
    )  # fmt: skip
    assert {"4.0", "0.5"} <= set(words(path))


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ({}, "`curves` is empty"),
        ([1, 2], "`curves` is empty"),
        ({"a": ([1, 2], [1])}, r"`curves\['a'\]` must hold as many y as x, at least one, got 1"),
        ({"a": ([], [])}, "at least one"),
    ],
)
def test_wrong_input_says_what_to_do(curves, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        lines(curves, tmp_path / "l.png", "t", **LABELS)
    assert not list(tmp_path.iterdir())
