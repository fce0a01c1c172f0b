"""The picture of classes in the plane."""

import re

import numpy as np
import pytest

from keras_robust.transfer import class_plot

pytestmark = pytest.mark.once


def test_classes_and_shares_are_named(rng, tmp_path):
    z = np.zeros((40, 3))
    z[:, 0], z[:, 1] = np.arange(40) % 2 * 6.0 - 3.0, np.arange(40) % 4 // 2 * 2.0 - 1.0
    y = (np.arange(40) % 2).astype(int)
    path = class_plot(z, y, tmp_path / "c.svg", "Two classes", class_names=["cat", "dog"])
    words = re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text())
    assert {"cat", "dog", "Two classes"} <= set(words)
    assert {"first component, 90% of the variance", "second component, 10% of the variance"} <= set(
        words
    )


def test_points_are_limited(rng, tmp_path):
    z, y = rng.normal(size=(500, 4)), rng.integers(0, 3, 500)
    sizes = [class_plot(z, y, tmp_path / f"{n}.svg", largest=n).stat().st_size for n in (10, 400)]
    assert sizes[1] > sizes[0] + 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": [0, 1]}, "a class number for each of the 5 rows"),
        ({"class_names": ["a"]}, "1 names, but labels go up to 1"),
    ],
)
def test_wrong_input_says_what_to_do(rng, tmp_path, arguments, message):
    given = {"z": rng.normal(size=(5, 3)), "y": [0, 1, 0, 1, 0], "path": tmp_path / "c.png"}
    with pytest.raises(ValueError, match=message):
        class_plot(**{**given, **arguments})
