import pytest

from keras_robust.evaluation._attribution import render_attribution, render_corruptions

pytestmark = pytest.mark.once


def data(**settings):
    artifact = {
        "clean_accuracy": 0.9,
        "broken_by": {"PGD@m": 30, "suite/<b>@twin": 10, "suite/Square@m": 0},
        "queries": {"Square": 12345},
        **settings,
    }
    return {
        "data": {"images": 100, "shape": [4, 4, 1]},
        "attacks": [{"kind": "ball"}],
        "artifacts": {"m": artifact},
    }


def test_bar_adds_up_to_all_images():
    page = render_attribution(data())
    for text in (
        "withstood all: 50 (50.0%)",
        "PGD: 30 (30.0%)",
        "suite/&lt;b&gt; on twin: 10 (10.0%)",
        "wrong without attack: 10 (10.0%)",
        "broke no further image: suite/Square.",
        "Square 12,345 queries of one image each",
    ):
        assert text in page, text
    assert "<b>" not in page
    widths = [float(part.split("%")[0]) for part in page.split("width:")[1:]]
    assert widths == [50.0, 30.0, 10.0, 10.0]


def test_nothing_to_show_shows_nothing():
    nothing = data()
    nothing["attacks"] = [{"kind": "search"}]
    assert render_attribution(nothing) == "" and render_corruptions(nothing) == ""


def test_corruptions_are_a_table():
    errors = {"gaussian_noise": [0.1, 0.2, 0.3, 0.4, 0.5], "fog": [0.5] * 5}
    page = render_corruptions(data(corruptions={"errors": errors, "mean_error": 0.4}))
    assert "gaussian noise" in page and "<td>30.0<small>10 20 30 40 50</small></td>" in page
    assert "<b>40.0</b>" in page
