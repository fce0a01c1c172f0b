"""Accuracy against bytes on disk, and what nothing else beats in both."""

from pathlib import Path

from keras_robust._canvas import picture
from keras_robust._marks import mark_of
from keras_robust.evaluation._plots import log_axis
from keras_robust.evaluation._plots_labels import label_points

_INCHES = (15.0, 6.6)
_PANELS = {"clean": "clean accuracy (%)", "robust": "robust accuracy (%)"}
_BEATEN, _DARK = "#8a94a3", "#1d2530"
# Beaten points this many times as far below the median as the best is above it, or as 5 points,
# would press all others together: they stand on the panel's lower edge.
_FAR_BELOW, _SPREAD = 4, 5.0


def pareto_front(points, key: str) -> list[str]:
    """The names that no other point beats, smallest first.

    A point is beaten by one that is no larger and no worse, and better in one of the two.

    Args:
        points: dict name -> dict with `bytes` and `key`.
        key: of what should be large.

    >>> points = {"float": (400, 0.9), "int8": (100, 0.88), "binary": (20, 0.6), "odd": (110, 0.5)}
    >>> points = {name: {"bytes": size, "clean": y} for name, (size, y) in points.items()}
    >>> pareto_front(points, "clean")
    ['binary', 'int8', 'float']
    """
    found, best = [], float("-inf")
    sizes = sorted({point["bytes"] for point in points.values()})
    for size in sizes:
        same = {name: p[key] for name, p in points.items() if p["bytes"] == size}
        if max(same.values()) > best:
            best = max(same.values())
            found += [name for name, value in same.items() if value == best]
    return found


def size_plot(points, path, title: str, *, panels=None) -> Path:
    """Saves accuracies against size, a panel for each, with its front as steps.

    What is beaten and far below all others stands on the lower edge, its accuracy by its name.

    Args:
        points: dict name -> dict with `bytes`, and for each panel its accuracy in [0, 1]; where
            there is an interval too, (low, high) under "KEY_interval", it is drawn as a bar.
            A `group` of a point is its shape in the legend.
        path: where the picture goes, .png, .svg or .pdf.
        title: above it.
        panels: dict key of an accuracy -> label of its axis; None for "clean" and "robust".

    Returns:
        `path`.

    Raises:
        ValueError: no points, one without size or accuracy, or a path that cannot be written.
    """
    panels = dict(_PANELS if panels is None else panels)
    _check(points, panels)
    groups = list(dict.fromkeys(point.get("group", "") for point in points.values()))

    def draw(axes):
        figure = axes.figure
        axes.remove()
        figure.suptitle(title, x=0.008, ha="left", fontsize=13)
        every = figure.subplots(1, len(panels), squeeze=False)[0]
        steps = [
            _panel(axes, points, key, label, groups)
            for axes, (key, label) in zip(every, panels.items())
        ]
        _legend(figure, every[0], groups)
        # Last, as all that takes room must be there.
        for axes, key, lines in zip(every, panels, steps):
            label_points(axes, _places(points, key), size=8.5, longest=36, lines=lines)

    return picture(draw, path, (_INCHES[0] * len(panels) / 2, _INCHES[1]))


def _check(points, panels):
    if not points:
        raise ValueError("`points` is empty. Give at least one: {name: {'bytes': ..., ...}}.")
    for name, point in points.items():
        missing = [key for key in ("bytes", *panels) if point.get(key) is None]
        if missing:
            raise ValueError(f"`points[{name!r}]` lacks {missing}. Leave the point out.")
        if point["bytes"] <= 0:
            raise ValueError(f"`points[{name!r}]` must have bytes > 0, got {point['bytes']!r}.")
        wrong = {key: point[key] for key in panels if not 0 <= point[key] <= 1}
        if wrong:
            raise ValueError(f"`points[{name!r}]` must hold accuracies in [0, 1], got {wrong}.")


def _panel(axes, points, key, label, groups) -> list:
    """Draws one panel, and returns the lines of its front."""
    front, edge = pareto_front(points, key), _edge(points, key)
    for name, point in points.items():
        on = name in front
        x, y = point["bytes"] / 1000, 100 * point[key]
        low, high = (100 * end for end in point.get(f"{key}_interval", (point[key], point[key])))
        if y >= edge:
            axes.plot([x, x], [low, high], color="#c9d0da", linewidth=1.0, zorder=1)
        axes.plot(
            x,
            max(y, edge),
            color=mark_of(0).color if on else _BEATEN,
            marker=mark_of(groups.index(point.get("group", ""))).marker,
            markersize=7.5 if on else 6,
            markeredgecolor="white",
            markeredgewidth=0.7,
            zorder=4 if on else 3,
        )
    log_axis(axes, [point["bytes"] / 1000 for point in points.values()])
    axes.set_xlim(left=axes.get_xlim()[0] / 1.5)  # Names stand left of the front.
    places = [(points[name]["bytes"] / 1000, 100 * points[name][key]) for name in front]
    # What is best goes on to the right: more bytes bring nothing.
    places.append((axes.get_xlim()[1], places[-1][1]))
    corners = places[:1]
    for (_, before), (x, y) in zip(places, places[1:]):
        corners += [(x, before), (x, y)]
    axes.plot(*zip(*corners), color=mark_of(0).color, linewidth=1.3, zorder=2)
    axes.set_xlabel("bytes on disk (KB, logarithmic)")
    axes.set_ylabel(label)
    _limits(axes, [max(100 * point[key], edge) for point in points.values()])
    return list(zip(corners, corners[1:]))


def _edge(points, key) -> float:
    """Where in % points stand that are far below: under the worst of the others."""
    values = sorted(100 * point[key] for point in points.values())
    median, best = values[len(values) // 2], values[-1]
    far = median - _FAR_BELOW * max(best - median, _SPREAD)
    front = min(100 * points[name][key] for name in pareto_front(points, key))
    worst = min(front, *(value for value in values if value >= far))
    return worst - _room(worst, best) if values[0] < worst else worst


def _limits(axes, values):
    """Room around the points; bars may leave it."""
    low, high = min(values), max(values)
    room = _room(low, high)
    axes.set_ylim(max(0.0, low - room), min(100.0, high + room))


def _room(low, high) -> float:
    return max(0.06 * (high - low), 2.0)


def _legend(figure, axes, groups):
    handles = [
        axes.plot([], [], color=mark_of(0).color, marker="o", label="on the front")[0],
        axes.plot([], [], color=_BEATEN, marker="o", linestyle="", label="beaten")[0],
        axes.plot([], [], color="#c9d0da", label="95% interval")[0],
    ]
    for number, group in enumerate(groups):
        if group:
            marker = mark_of(number).marker
            handles.append(axes.plot([], [], _DARK, marker=marker, linestyle="", label=group)[0])
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def _places(points, key):
    """Those on the front choose their places first."""
    front, edge = pareto_front(points, key), _edge(points, key)
    places = []
    for name in front + [name for name in points if name not in front]:
        y, color = 100 * points[name][key], _DARK if name in front else _BEATEN
        label = name if y >= edge else f"{name}: {y:.1f} ↓"
        places.append((points[name]["bytes"] / 1000, max(y, edge), label, color))
    return places
