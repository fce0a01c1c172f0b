import html
import re

import pytest

from keras_robust.evaluation._plots_classes import _strongest, _weakest_first, per_class_plot

pytestmark = pytest.mark.once


def report(per_class, names=("cat", "dog", "owl")):
    """What a report says of two models, `per_class` a dict attack -> shares for each."""
    artifacts = {f"<model {i}>": {"per_class": each} for i, each in enumerate(per_class)}
    return {"artifacts": artifacts, "data": {"class_names": list(names)}}


def texts(page):
    return [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", page)]


def test_the_attack_that_leaves_least_is_shown_weakest_class_first():
    page = per_class_plot(
        report(
            [
                {"FGSM": [0.9, 0.5, 0.7], "PGD": [0.6, 0.1, 0.4]},
                {"FGSM": [0.9, 0.9, 0.9], "PGD": [0.5, 0.3, 0.4]},
            ]
        )
    )
    assert page.startswith("<figure>") and page.count("<figure>") == 1
    assert "accuracy under PGD (%)" in texts(page) and "FGSM" not in page
    assert [text for text in texts(page) if text in ("cat", "dog", "owl")] == ["dog", "owl", "cat"]
    assert "&lt;model 0&gt;" in page and "<model" not in page


def test_a_class_without_images_is_left_out():
    page = per_class_plot(report([{"PGD": [0.2, None, 0.4]}]))
    assert "dog" not in texts(page) and "owl" in texts(page)


def test_of_many_classes_the_weakest_are_shown():
    names = [f"class {i}" for i in range(43)]
    page = per_class_plot(report([{"PGD": [i / 43 for i in range(43)]}], names))
    shown = [text for text in texts(page) if text.startswith("class ")]
    assert shown == names[:20] and "The 20 weakest of 43 classes under PGD." in page


@pytest.mark.parametrize("per_class", [[], [{}], [{"PGD": [None, None, None]}]])
def test_nothing_to_show(per_class):
    assert per_class_plot(report(per_class)) == ""
    data = report(per_class)
    for artifact in data["artifacts"].values():
        del artifact["per_class"]
    assert per_class_plot(data) == ""


def test_strongest_and_order():
    assert _strongest([{"a": [0.5, None]}, {"a": [0.1], "b": [0.2]}]) == "b"
    assert _weakest_first([[0.5, 0.2, None, 0.9], [0.1, 0.6, None, None]]) == [0, 1, 3]
