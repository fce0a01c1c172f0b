import re
import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image

from keras_robust._canvas import picture, svg

pytestmark = pytest.mark.once


def draw(axes):
    axes.plot([0, 1], [0, 1], label="line")
    axes.set_xlabel("a < b & $c")


def test_svg_stands_in_a_page_beside_others():
    one, two = svg(draw, "one"), svg(draw, "two")
    assert one.startswith("<svg") and 'role="img"' in one.split(">")[0]
    assert "xmlns" not in one.split(">")[0] and "<metadata" not in one
    assert "a &lt; b &amp; $c" in one
    ids = [re.findall(r'\bid="([^"]+)"', page) for page in (one, two)]
    assert ids[0] and all(name.startswith("one-") for name in ids[0])
    assert not set(ids[0]) & set(ids[1])
    assert set(re.findall(r"url\(#([^)]+)\)", one)) <= set(ids[0])
    assert svg(draw, "one") == one


def test_settings_are_left_as_they_were():
    before, pyplot = matplotlib.rcParams["font.size"], "matplotlib.pyplot" in sys.modules
    plain = svg(draw, "one")
    with matplotlib.rc_context({"font.size": 33.0}):
        assert svg(draw, "one") == plain and matplotlib.rcParams["font.size"] == 33.0
    assert matplotlib.rcParams["font.size"] == before
    assert ("matplotlib.pyplot" in sys.modules) == pyplot


def test_picture_is_written_whole(tmp_path):
    path = picture(draw, tmp_path / "made" / "plot.png", (4, 3), dpi=50)
    image = Image.open(path)
    assert image.size == (200, 150) and np.asarray(image.convert("L")).std() > 5
    assert [p.name for p in path.parent.iterdir()] == ["plot.png"]
    assert picture(draw, tmp_path / "plot.svg").read_text().startswith("<?xml")


def test_an_older_picture_survives_a_failure(tmp_path):
    path = tmp_path / "plot.png"
    path.write_bytes(b"older")

    def fail(axes):
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        picture(fail, path)
    assert path.read_bytes() == b"older"
    with pytest.raises(ValueError, match="`path` is .*plot.txt.*Give a path that ends in .png"):
        picture(draw, tmp_path / "plot.txt")
