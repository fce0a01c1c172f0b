"""A row for each thing and a mark for each artifact: many names stay readable on a phone."""

import math

from keras_robust._marks import mark_of

_ROW_INCHES = 0.27
_NAME = 18


def rows_inches(rows: int) -> tuple[float, float]:
    """Width and height of a picture with so many rows."""
    return 5.0, 0.75 + _ROW_INCHES * rows


def draw_rows(axes, names: list[str], series: dict[int, list], label: str, whole=True) -> None:
    """Marks in percent along the row of each name, the first row on top.

    Args:
        names: of the rows; "# text" is a heading.
        series: number of the artifact -> a share for each row; None where there is none.
        label: of the axis.
        whole: the axis reaches to 100%, else as far as it needs to.
    """
    for row in range(len(names)):
        shares = [100 * s[row] for s in series.values() if s[row] is not None]
        if len(shares) > 1:
            axes.hlines(row, min(shares), max(shares), color="#b9c2cf", linewidth=1.4, zorder=2)
    for place, (index, shares) in enumerate(series.items()):
        mark = mark_of(index)
        known = [(100 * share, row) for row, share in enumerate(shares) if share is not None]
        axes.plot(
            *zip(*known),
            color=mark.color,
            linestyle="",
            marker=mark.marker,
            # Equal points stay visible: those drawn first are larger.
            markersize=9 - 3.6 * place / max(1, len(series) - 1),
            markeredgecolor="white",
            markeredgewidth=0.7,
            clip_on=False,
            zorder=3,
        )
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), [_shown(name) for name in names])
    for tick, name in zip(axes.get_yticklabels(), names):
        tick.set_fontweight("bold" if name.startswith("# ") else "normal")
    for line, name in zip(axes.get_ygridlines(), names):
        line.set_visible(not name.startswith("# "))
    # The mark of 0% must not touch the name.
    axes.tick_params(axis="y", length=0, pad=9)
    axes.spines["left"].set_visible(False)
    most = max((s for shares in series.values() for s in shares if s is not None), default=1)
    last = 100 if whole else min(100, 10 * max(2, math.ceil(10 * most)))
    axes.set_xlim(0, last)
    axes.set_xticks(range(0, last + 1, 20 if last > 50 else 10))
    axes.set_xlabel(label)


def _shown(name: str) -> str:
    name = name.removeprefix("# ")
    # Cut in the middle: long names differ at their ends.
    return name if len(name) <= _NAME else f"{name[: _NAME // 2]}…{name[1 - _NAME // 2 :]}"
