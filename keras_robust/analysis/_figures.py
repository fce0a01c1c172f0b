"""Results of an analysis as pictures on disk, in the look of the report."""

import collections.abc
import math
from pathlib import Path

import numpy as np

from keras_robust._canvas import picture
from keras_robust._marks import mark_of


def heat_map(
    matrix,
    rows: list[str],
    columns: list[str],
    path,
    title: str,
    *,
    row_label: str = "made for",
    column_label: str = "tried on",
    limits=(0.0, 100.0),
    digits: int = 1,
) -> Path:
    """A table of numbers as colours, each number in its field; dark is high.

    Args:
        matrix: `(rows, columns)`; NaN fields stay empty.
        rows, columns: names.
        path: where the picture goes, .png, .svg or .pdf.
        title: above it.
        row_label, column_label: what the names are.
        limits: the values of the lightest and the darkest colour.
        digits: decimals.

    Returns:
        `path`.

    Raises:
        ValueError: names that do not fit the matrix, or a path that cannot be written.
    """
    matrix = np.asarray(matrix, np.float64)
    if matrix.ndim != 2 or matrix.shape != (len(rows), len(columns)):
        raise ValueError(
            f"`matrix` must have a row for each of the {len(rows)} `rows` and a column for each of "
            f"the {len(columns)} `columns`, got shape {matrix.shape}."
        )
    low, high = limits
    if not low < high:
        raise ValueError(f"`limits` must be (low, high) with low < high, got {limits!r}.")

    def draw(axes):
        axes.imshow(matrix, cmap="Blues", vmin=low, vmax=high, aspect="auto")
        for (row, column), value in np.ndenumerate(matrix):
            if math.isfinite(value):
                dark = (value - low) / (high - low) > 0.55
                axes.text(
                    column,
                    row,
                    f"{value:.{digits}f}",
                    ha="center",
                    va="center",
                    color="white" if dark else "#1d2530",
                )
        slanted = max(map(len, columns)) > 9
        axes.set_xticks(
            range(len(columns)),
            [_clip(name) for name in columns],
            rotation=35 if slanted else 0,
            ha="right" if slanted else "center",
            rotation_mode="anchor",
        )
        axes.set_yticks(range(len(rows)), [_clip(name) for name in rows])
        axes.set_xticks(np.arange(0.5, len(columns) - 1), minor=True)
        axes.set_yticks(np.arange(0.5, len(rows) - 1), minor=True)
        axes.grid(which="major", visible=False)
        axes.grid(which="minor", color="white", linewidth=2)
        axes.tick_params(which="both", length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel(column_label)
        axes.set_ylabel(row_label)
        axes.set_title(title, loc="left", wrap=True)

    return picture(draw, path, (2.6 + 0.72 * len(columns), 1.9 + 0.42 * len(rows)))


def histogram(
    values,
    path,
    title: str,
    *,
    label: str = "distance",
    bars: int = 24,
    share: bool = True,
) -> Path:
    """How often values occur, a line for each name, with a mark above for each median.

    Args:
        values: dict name -> numbers, or numbers; what is not finite is left out, and counts in
            the whole that shares are of.
        path, title: as in `heat_map`.
        label: of the axis of the values, with its unit.
        bars: number of bars.
        share: percent on the other axis, else counts.

    Returns:
        `path`.

    Raises:
        ValueError: no finite value at all, or a path that cannot be written.
    """
    named = values if isinstance(values, collections.abc.Mapping) else {"": values}
    named = {str(name): np.ravel(np.asarray(v, np.float64)) for name, v in named.items()}
    finite = {name: v[np.isfinite(v)] for name, v in named.items()}
    every = np.concatenate([np.empty(0), *finite.values()])
    if not len(every):
        raise ValueError("`values` holds no finite number. Give at least one.")
    edges = np.histogram_bin_edges(every, bars, (min(0.0, every.min()), every.max() or 1.0))

    def draw(axes):
        for index, (name, numbers) in enumerate(finite.items()):
            if not len(numbers):
                continue
            mark = mark_of(index)
            counts, _ = np.histogram(numbers, edges)
            heights = 100 * counts / len(named[name]) if share else counts
            if len(finite) <= 3:
                axes.stairs(heights, edges, color=mark.color, fill=True, alpha=0.15)
            axes.stairs(heights, edges, color=mark.color, linestyle=mark.line, linewidth=1.8)
            axes.plot(
                np.median(numbers),
                1.03,
                transform=axes.get_xaxis_transform(),
                **_marker(mark),
                linestyle="",
                clip_on=False,
                label=f"{name}: median {np.median(numbers):.3g}" if name else None,
            )
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(bottom=0)
        axes.set_xlabel(label)
        axes.set_ylabel("share (%)" if share else "count")
        axes.set_title(title, loc="left", pad=14, wrap=True)
        _legend(axes)

    return picture(draw, path)


def accuracy_eps(
    curves,
    path,
    title: str,
    *,
    label: str = "eps (units of the inputs)",
    chance: float | None = None,
) -> Path:
    """Accuracy against the radius of the attack, a curve for each name.

    Args:
        curves: dict name -> (radii, accuracies in [0, 1]).
        path, title: as in `heat_map`.
        label: of the axis of the radii.
        chance: accuracy of guessing, in [0, 1], drawn as a dotted line.

    Returns:
        `path`.

    Raises:
        ValueError: no curve, radii and accuracies of different length, accuracies outside
            [0, 1], or a path that cannot be written.
    """
    if not curves:
        raise ValueError("`curves` is empty. Give at least one: {name: (radii, accuracies)}.")
    for name, (radii, accuracies) in curves.items():
        if len(radii) != len(accuracies) or not len(radii):
            raise ValueError(
                f"`curves[{name!r}]` must hold as many accuracies as radii, at least one, got "
                f"{len(accuracies)} and {len(radii)}."
            )
        if min(accuracies) < 0 or max(accuracies) > 1:
            raise ValueError(
                f"`curves[{name!r}]` must hold accuracies in [0, 1], got values in "
                f"[{min(accuracies):g}, {max(accuracies):g}]."
            )

    def draw(axes):
        for index, (name, (radii, accuracies)) in enumerate(curves.items()):
            mark = mark_of(index)
            axes.plot(
                radii,
                100 * np.asarray(accuracies, np.float64),
                **_marker(mark),
                linestyle=mark.line,
                # Equal curves stay visible: those drawn first are wider.
                linewidth=3.2 - 1.6 * index / max(1, len(curves) - 1),
                clip_on=False,
                zorder=3,
                label=str(name),
            )
        if chance is not None:
            axes.axhline(100 * chance, color="#6b7686", linestyle=":", label="guessing")
        axes.set_xlim(left=min(0.0, *(min(radii) for radii, _ in curves.values())))
        axes.set_ylim(0, 100)
        axes.set_xlabel(label)
        axes.set_ylabel("accuracy (%)")
        axes.set_title(title, loc="left", wrap=True)
        _legend(axes)

    return picture(draw, path)


def _marker(mark):
    return {
        "color": mark.color,
        "marker": mark.marker,
        "markersize": 6.5,
        "markeredgecolor": "white",
        "markeredgewidth": 0.7,
    }


def _legend(axes) -> None:
    """Names below the axes, where they hide nothing."""
    handles, names = axes.get_legend_handles_labels()
    if names:
        axes.figure.legend(
            handles, names, loc="outside lower left", ncols=2 if len(names) > 1 else 1,
            frameon=False, fontsize=9,
        )  # fmt: skip


def _clip(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:12]}…{name[-11:]}"
