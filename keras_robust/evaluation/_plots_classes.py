"""Which classes an attack breaks."""

import numpy as np

from keras_robust._canvas import svg
from keras_robust._marks import mark_of
from keras_robust.evaluation._plots_canvas import figure_html
from keras_robust.evaluation._plots_rows import draw_rows, rows_inches

_CLASSES = 20


def per_class_plot(data: dict) -> str:
    """Robust accuracy of each class under the attack that leaves least; "" without any."""
    artifacts = data["artifacts"]
    attack = _strongest([a.get("per_class") or {} for a in artifacts.values()])
    if attack is None:
        return ""
    shares = {
        index: a["per_class"][attack]
        for index, a in enumerate(artifacts.values())
        if attack in (a.get("per_class") or {})
    }
    order = _weakest_first(list(shares.values()))
    shown = order[:_CLASSES]
    names = [data["data"]["class_names"][label] for label in shown]
    series = {index: [values[label] for label in shown] for index, values in shares.items()}
    drawing = svg(
        lambda axes: draw_rows(axes, names, series, f"accuracy under {attack} (%)"),
        "classes",
        rows_inches(len(shown)),
    )
    text = f"Under {attack}, the attack that leaves least; the weakest class on top."
    if len(shown) < len(order):
        text = f"The {len(shown)} weakest of {len(order)} classes under {attack}."
    legend = [(mark_of(index).swatch(), list(artifacts)[index]) for index in shares]
    return figure_html("Robust accuracy by class", text, drawing, legend)


def _strongest(per_class: list[dict]) -> str | None:
    """The attack with the lowest mean over all artifacts and classes that it was tried on."""
    found = {}
    for attacks in per_class:
        for name, shares in attacks.items():
            found.setdefault(name, []).extend(s for s in shares if s is not None)
    found = {name: np.mean(shares) for name, shares in found.items() if shares}
    return min(found, key=found.get, default=None)


def _weakest_first(shares: list[list]) -> list[int]:
    """Labels of the classes that have images, by the mean of the artifacts."""
    means = {}
    for label, values in enumerate(zip(*shares)):
        known = [value for value in values if value is not None]
        if known:
            means[label] = np.mean(known)
    return sorted(means, key=means.get)
