import re

import numpy as np
import pytest
from PIL import Image

from keras_robust.analysis._figures import accuracy_eps, heat_map, histogram

pytestmark = pytest.mark.once


def words(path):
    """The text of an SVG in order."""
    found = re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text())
    return [word.replace("−", "-") for word in found]


def test_heat_map_prints_each_number_in_its_field(tmp_path):
    path = heat_map(
        [[1.25, 50.0], [np.nan, 99.96]], ["a", "b"], ["c", "d"], tmp_path / "m.svg", "Errors (%)"
    )
    found = words(path)
    assert [w for w in found if "." in w] == ["1.2", "50.0", "100.0"]
    assert {"a", "b", "c", "d", "Errors (%)", "made for", "tried on"} <= set(found)


def test_heat_map_is_dark_where_the_number_is_high(tmp_path):
    path = heat_map([[0.0, 100.0]], ["a"], ["c", "d"], tmp_path / "m.png", "t")
    image = np.asarray(Image.open(path).convert("L"), float)
    middle = image[image.shape[0] // 2 - 40 : image.shape[0] // 2 - 20]
    half = image.shape[1] // 2
    assert middle[:, half + 60 : half + 100].mean() < 80 < 200 < middle[:, half - 60].mean()


def test_heat_map_grows_with_its_names(tmp_path):
    sizes = []
    for count in (2, 8):
        names = [f"FC200-200-10 number {i}" for i in range(count)]
        path = heat_map(np.eye(count), names, names, tmp_path / f"{count}.png", "t", limits=(0, 1))
        sizes.append(Image.open(path).size)
    assert sizes[1][0] > sizes[0][0] + 400 and sizes[1][1] > sizes[0][1] + 200


def test_histogram_names_medians(tmp_path):
    values = {"a": [1.0, 2.0, 3.0, np.inf], "b": [0.5] * 4}
    found = words(histogram(values, tmp_path / "h.svg", "Distances", label="l2 distance"))
    assert {"a: median 2", "b: median 0.5", "l2 distance", "share (%)"} <= set(found)
    found = words(histogram([1.0, 2.0], tmp_path / "h.svg", "One", share=False))
    assert "count" in found and not any("median" in word for word in found)


def test_accuracy_eps_names_its_curves(tmp_path):
    curves = {"a": ([0, 0.1], [1.0, 0.5]), "b": (np.array([0.0, 0.1]), np.array([0.9, 0.0]))}
    found = words(accuracy_eps(curves, tmp_path / "e.svg", "Under PGD", chance=0.1))
    assert {"a", "b", "guessing", "accuracy (%)", "eps (units of the inputs)"} <= set(found)
    assert accuracy_eps(curves, tmp_path / "e.png", "t").exists()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: heat_map(np.eye(2), ["a"], ["b", "c"], p, "t"), r"got shape \(2, 2\)"),
        (
            lambda p: heat_map([[1.0]], ["a"], ["b"], p, "t", limits=(1, 1)),
            r"`limits` must be \(low, high\) with low < high",
        ),
        (lambda p: histogram([np.inf], p, "t"), "`values` holds no finite number"),
        (lambda p: accuracy_eps({}, p, "t"), "`curves` is empty"),
        (lambda p: accuracy_eps({"a": ([0, 1], [1])}, p, "t"), "as many accuracies as radii"),
        (lambda p: accuracy_eps({"a": ([0], [2])}, p, "t"), r"accuracies in \[0, 1\], got .*\[2"),
    ],
)
def test_wrong_input_says_what_to_do(call, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        call(tmp_path / "p.png")
    assert not list(tmp_path.iterdir())
