import numpy as np
import pytest
from matplotlib.figure import Figure

from keras_robust.evaluation._plots_distortion import _draw, _edges, distortion_plot

pytestmark = pytest.mark.once


def report(*values, attack="DeepFool"):
    artifacts = {}
    for number, each in enumerate(values):
        right = [v for v in each if v != 0]
        found = [v for v in right if v is not None]
        artifacts[f"<m{number}>"] = {
            "distortion": {
                attack: {
                    "norm": "l2",
                    "median": float(np.median(found)) if found else None,
                    "mean": float(np.mean(found)) if found else None,
                    "found": len(found) / len(right),
                    "values": each,
                }
            }
        }
    return {"artifacts": artifacts}


def test_legend_says_median_and_share_found():
    page = distortion_plot(report([0.0, 1.0, 2.0, 3.0, None], [0.5, 0.7, 0.9]))
    assert (
        "&lt;m0&gt;: median 2, 75% found" in page and "&lt;m1&gt;: median 0.7, 100% found" in page
    )
    assert "l2 distance to the nearest wrong answer found" in page
    assert "By DeepFool" in page and "last bars" not in page


def test_bars_are_shares_of_the_images_that_were_right():
    axes = Figure().add_subplot()
    values = np.array([0.5, 1.5, 1.6])
    _draw(axes, {0: ("m", {"found": 0.75}, values)}, np.array([0.0, 1.0, 2.0]), "l2")
    outline = axes.patches[-1].get_data()
    np.testing.assert_allclose(outline.values, [25, 50])  # the fourth was never found
    assert axes.lines[0].get_xdata()[0] == 1.5  # the median


def test_a_long_tail_is_folded_and_said_so():
    values = [*np.linspace(0.1, 1, 99), 50.0]
    edges, folded = _edges(np.array(values))
    assert folded and edges[-1] < 2
    assert "The last bars hold all beyond" in distortion_plot(report(values))
    edges, folded = _edges(np.linspace(0.1, 1, 99))
    assert not folded and edges[0] == 0 and edges[-1] == 1


def test_one_figure_for_each_attack_with_ids_of_its_own():
    data = report([1.0, 2.0])
    more = report([0.1, 0.2], attack="FAB")["artifacts"]["<m0>"]["distortion"]
    data["artifacts"]["<m0>"]["distortion"].update(more)
    page = distortion_plot(data)
    assert page.count("<figure>") == 2 and "By FAB" in page
    assert 'id="distortion0-' in page and 'id="distortion1-' in page


@pytest.mark.parametrize("values", [[None, None], None, [0.0]])
def test_nothing_to_show(values):
    distortion = {"norm": "l2", "median": None, "mean": None, "found": 0.0, "values": values}
    assert distortion_plot({"artifacts": {"m": {"distortion": {"FAB": distortion}}}}) == ""
    assert distortion_plot({"artifacts": {"m": {}}}) == ""
