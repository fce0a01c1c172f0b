"""Curves against a number, one a name, as a picture."""

import collections.abc
from pathlib import Path

import numpy as np

from keras_robust._canvas import picture
from keras_robust._marks import mark_of
from keras_robust.analysis._figures import _legend, _marker


def lines(
    curves,
    path,
    title: str,
    *,
    x_label: str,
    y_label: str,
    y_limits=None,
    points: bool = True,
    level: float | None = None,
    level_label: str = "",
) -> Path:
    """Draws a curve for each name, in the look of the report.

    Args:
        curves: dict name -> (x, y), two sequences of one length.
        path: where the picture goes, .png, .svg or .pdf.
        title: above it.
        x_label, y_label: of the axes, with their units.
        y_limits: (low, high) of the upright axis; None fits it to the curves, from 0.
        points: mark each point; curves of many points are clearer without.
        level: a dotted line at this height.
        level_label: its name in the legend.

    Returns:
        `path`.

    Raises:
        ValueError: no curve, or one with x and y of different lengths.
    """
    if not isinstance(curves, collections.abc.Mapping) or not curves:
        raise ValueError("`curves` is empty. Give at least one: {name: (x, y)}.")
    for name, (x, y) in curves.items():
        if len(x) != len(y) or not len(x):
            raise ValueError(
                f"`curves[{name!r}]` must hold as many y as x, at least one, got {len(y)} and "
                f"{len(x)}."
            )

    def draw(axes):
        for index, (name, (x, y)) in enumerate(curves.items()):
            mark = mark_of(index)
            style = _marker(mark) if points else {"color": mark.color}
            axes.plot(
                np.asarray(x, np.float64),
                np.asarray(y, np.float64),
                **style,
                linestyle=mark.line,
                linewidth=3.2 - 1.6 * index / max(1, len(curves) - 1),
                zorder=3,
                label=str(name),
            )
        if level is not None:
            axes.axhline(level, color="#6b7686", linestyle=":", label=level_label or None)
        if all(np.issubdtype(np.asarray(x).dtype, np.integer) for x, _ in curves.values()):
            axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(*(y_limits or (0, None)))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.set_title(title, loc="left", wrap=True)
        _legend(axes)

    return picture(draw, path)
