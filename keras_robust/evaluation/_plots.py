"""The report's plots as SVG text: axes with units, no legend inside (the page sets it beside)."""

import math

from keras_robust._canvas import svg
from keras_robust._marks import mark_of
from keras_robust.evaluation._plots_labels import label_points


def plot_sizes(data: dict) -> str | None:
    """Worst-case robust accuracy against gzipped size; None when nothing has a size."""
    artifacts = data["artifacts"]
    sized = {name: a for name, a in artifacts.items() if a["gzip_bytes"]}
    if not sized:
        return None

    def draw(axes):
        places = []
        for number, (name, artifact) in enumerate(sized.items()):
            mark = mark_of(list(artifacts).index(name))
            # Equal points stay visible: those drawn first are larger.
            marker_size = 10 - 4 * number / max(1, len(sized) - 1)
            x, y = artifact["gzip_bytes"] / 1000, 100 * artifact["worst_case"]
            low, high = (100 * end for end in artifact["worst_case_interval"])
            axes.errorbar(
                x,
                y,
                [[max(y - low, 0)], [max(high - y, 0)]],
                color=mark.color,
                elinewidth=1.2,
                marker=mark.marker,
                markersize=marker_size,
                markeredgecolor="white",
                capsize=2.5,
                alpha=0.95,
            )
            places.append((x, y, name, mark.color))
        log_axis(axes, [place[0] for place in places])
        axes.set_xlabel("size, gzipped (KB, logarithmic)")
        axes.set_ylabel("robust accuracy, worst attack (%)")
        # Points, not bars: the axis need not start at 0, and crowded labels need the room.
        ends = [100 * end for a in sized.values() for end in a["worst_case_interval"]]
        low, high = 10 * math.floor(min(ends) / 10), 10 * math.ceil(max(ends) / 10)
        axes.set_ylim(max(0, min(low, high - 20)), min(100, max(high, low + 20)))
        label_points(axes, places)

    return svg(draw, "sizes")


def plot_sweep(data: dict) -> str | None:
    """Accuracy against eps, one curve an artifact; None when there is no sweep."""
    if not data["sweep"]:
        return None
    attack = next(a for a in data["attacks"] if a["name"] == data["sweep"]["attack"])

    def draw(axes):
        count = len(data["artifacts"])
        for index, artifact in enumerate(data["artifacts"].values()):
            mark = mark_of(index)
            # Equal curves stay visible: those drawn first are wider.
            width = 3.4 - 1.8 * index / max(1, count - 1)
            axes.plot(
                [float(eps) for eps in artifact["sweep"]],
                [100 * value for value in artifact["sweep"].values()],
                color=mark.color,
                linestyle=mark.line,
                linewidth=width,
                marker=mark.marker,
                markersize=3.4 + 1.3 * width,
                markeredgecolor="white",
                markeredgewidth=0.6,
                clip_on=False,
                zorder=3,
            )
        axes.axvline(attack["eps"], color="#6b7686", linestyle=":", linewidth=1.2)
        axes.annotate(
            "eps of the table",
            (attack["eps"], 1.0),
            (0, 4),
            color="#4d5765",
            fontsize=9,
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
        )
        axes.set_xlim(left=0)
        axes.set_xlabel(f"{attack['norm']} eps (units of the inputs)")
        _accuracy_axis(axes, f"accuracy under {attack['name']} (%)")

    return svg(draw, "sweep")


def training_series(data: dict) -> list[tuple[str, str, list]]:
    """(name, "clean" or "robust", values) of every curve: held out, else in training."""
    found = []
    for name, history in data["histories"].items():
        for kind, keys in (
            ("clean", ("val_accuracy", "accuracy")),
            ("robust", ("val_robust_accuracy", "robust_accuracy")),
        ):
            values = next((history[key] for key in keys if history.get(key)), None)
            if values:
                found.append((name, kind, values))
    return found


def plot_training(data: dict) -> str | None:
    """Accuracies over the epochs of each training; None when there are none."""
    series = training_series(data)
    if not series:
        return None

    def draw(axes):
        from matplotlib.ticker import MaxNLocator

        for name, kind, values in series:
            mark = mark_of(history_index(data, name))
            axes.plot(
                range(1, len(values) + 1),
                [float("nan") if value is None else 100 * value for value in values],
                color=mark.color,
                linestyle="-" if kind == "clean" else (0, (4, 2)),
                linewidth=2,
                marker=mark.marker,
                markersize=5,
                markeredgecolor="white",
                clip_on=False,
                zorder=3,
                markerfacecolor=mark.color if kind == "clean" else "white",
                **({} if kind == "clean" else {"markeredgewidth": 1.4}),
            )
            if kind == "robust":
                axes.lines[-1].set_markeredgecolor(mark.color)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch")
        _accuracy_axis(axes, "accuracy (%)")

    return svg(draw, "training")


def history_index(data: dict, name: str) -> int:
    """Number of the mark of a training: that of the artifact of the same name, if there is one."""
    names = list(data["artifacts"])
    names += [other for other in data["histories"] if other not in names]
    return names.index(name)


def _accuracy_axis(axes, label):
    axes.set_ylim(0, 100)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel(label)


def log_axis(axes, sizes):
    """Room for labels on both sides of the sizes, in KB, and ticks that say 1, 2, 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    # Room for the labels, and at least a factor of ten, so that equal sizes look equal.
    low, high = min(sizes) / 1.6, max(sizes) * 1.6
    widen = max(1.0, 10 / (high / low)) ** 0.5
    axes.set_xscale("log")
    axes.set_xlim(low / widen, high * widen)
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
