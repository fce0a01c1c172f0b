"""What common corruptions cost: by family, and one by one."""

import numpy as np

from keras_robust._canvas import svg
from keras_robust._marks import mark_of
from keras_robust.data.corruptions import family_of
from keras_robust.evaluation._plots_canvas import figure_html
from keras_robust.evaluation._plots_rows import draw_rows, rows_inches

_FAMILIES = ("noise", "blur", "weather", "digital", "other")


def corruption_plot(data: dict) -> str:
    """Two figures, errors by family and by corruption; "" when no artifact was corrupted."""
    artifacts = data["artifacts"]
    errors = {
        index: a["corruptions"]["errors"]
        for index, a in enumerate(artifacts.values())
        if (a.get("corruptions") or {}).get("errors")
    }
    if not errors:
        return ""
    legend = [(mark_of(index).swatch(), list(artifacts)[index]) for index in errors]
    names = dict.fromkeys(name for found in errors.values() for name in found)
    groups = {f: [n for n in names if family_of(n) == f] for f in _FAMILIES}
    groups = {family: members for family, members in groups.items() if members}
    families = figure_html(
        "Errors by family of corruption",
        "Bars and marks: mean over corruptions and severities; lines: from the mildest severity "
        "to the worst.",
        svg(lambda axes: _draw_families(axes, groups, errors), "families"),
        legend,
    )
    rows, series = _rows(groups, errors)
    single = figure_html(
        "Errors by corruption",
        "Mean over the five severities. Farther left is better.",
        svg(
            lambda axes: draw_rows(axes, rows, series, "error (%)", whole=False),
            "corruptions",
            rows_inches(len(rows)),
        ),
        legend,
    )
    return families + "\n" + single


def _rows(groups, errors):
    """Names of the rows, a heading before each family, and the mean errors of each artifact."""
    rows, series = [], {index: [] for index in errors}
    for family, members in groups.items():
        rows.append(f"# {family}")
        rows += [member.replace("_", " ") for member in members]
        for index, found in errors.items():
            means = [float(np.mean(found[m])) if found.get(m) else None for m in members]
            series[index] += [None, *means]
    return rows, series


def _draw_families(axes, groups, errors):
    groups = {**groups, "all": [m for members in groups.values() for m in members]}
    width = min(0.8 / len(errors), 0.3)
    for place, (index, found) in enumerate(errors.items()):
        mark = mark_of(index)
        shift = width * (place - (len(errors) - 1) / 2)
        for group, members in enumerate(groups.values()):
            table = [found[member] for member in members if found.get(member)]
            if not table:
                continue
            by_severity = 100 * np.mean(table, axis=0)
            mean = by_severity.mean()
            axes.bar(group + shift, mean, 0.9 * width, color=mark.color, alpha=0.35, zorder=2)
            axes.errorbar(
                group + shift,
                mean,
                [[max(mean - by_severity.min(), 0)], [max(by_severity.max() - mean, 0)]],
                color=mark.color,
                elinewidth=1.4,
                marker=mark.marker,
                markersize=6,
                markeredgecolor="white",
                markeredgewidth=0.6,
                zorder=3,
            )
    axes.set_xticks(range(len(groups)), list(groups))
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", visible=False)
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.set_ylim(0, min(100, max(20, axes.get_ylim()[1])))
    axes.set_ylabel("error (%)")
