"""How far the smallest perturbations are that change an answer."""

import numpy as np

from keras_robust._canvas import svg
from keras_robust._marks import mark_of
from keras_robust.evaluation._plots_canvas import figure_html

_BARS = 20


def distortion_plot(data: dict) -> str:
    """A histogram for each attack that seeks the smallest perturbation; "" without any."""
    attacks = dict.fromkeys(
        attack for a in data["artifacts"].values() for attack in a.get("distortion") or {}
    )
    return "\n".join(
        figure for number, attack in enumerate(attacks) if (figure := _plot(data, attack, number))
    )


def _plot(data, attack, number) -> str:
    found = {}
    for index, (name, artifact) in enumerate(data["artifacts"].items()):
        distortion = (artifact.get("distortion") or {}).get(attack)
        # Distance 0: wrong before the attack. None: never fooled.
        values = np.array([v for v in (distortion or {}).get("values") or () if v])
        if len(values):
            found[index] = name, distortion, values
    if not found:
        return ""
    norm = next(distortion["norm"] for _, distortion, _ in found.values())
    every = np.concatenate([values for *_, values in found.values()])
    edges, beyond = _edges(every)
    drawing = svg(lambda axes: _draw(axes, found, edges, norm), f"distortion{number}")
    legend = [
        (
            mark_of(index).swatch(),
            f"{name}: median {np.median(values):.3g}, {100 * distortion['found']:.0f}% found",
        )
        for index, (name, distortion, values) in found.items()
    ]
    text = (
        f"By {attack}, on the images that are right when clean. Marks above: medians. Farther is "
        "more robust."
    )
    if beyond:
        text += f" The last bars hold all beyond {edges[-1]:.3g}."
    return figure_html("Smallest perturbations found", text, drawing, legend)


def _edges(values) -> tuple[np.ndarray, bool]:
    """Edges of the bars from 0, and whether a long tail was folded into the last one."""
    last, most = float(values.max()), float(np.percentile(values, 98))
    folded = last > 1.6 * most
    return np.linspace(0, most if folded else last, _BARS + 1), folded


def _draw(axes, found, edges, norm):
    for place, (index, (_, distortion, values)) in enumerate(found.items()):
        mark = mark_of(index)
        counts, _ = np.histogram(np.minimum(values, edges[-1]), edges)
        # Of all images that were right: what was never found is missing from the sum.
        shares = 100 * counts * distortion["found"] / len(values)
        if len(found) <= 3:  # more would hide one another
            axes.stairs(shares, edges, color=mark.color, fill=True, alpha=0.15, zorder=2)
        axes.stairs(shares, edges, color=mark.color, linestyle=mark.line, linewidth=1.8, zorder=3)
        axes.plot(
            min(float(np.median(values)), edges[-1]),
            1.035,
            transform=axes.get_xaxis_transform(),
            color=mark.color,
            marker=mark.marker,
            markersize=9 - 3.6 * place / max(1, len(found) - 1),
            markeredgecolor="white",
            clip_on=False,
            zorder=4,
        )
    axes.set_xlim(0, edges[-1])
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"{norm} distance to the nearest wrong answer found")
    axes.set_ylabel("images (%)")
