"""Markdown tables of `results/*.json`; `python benchmarks/tables.py` puts them in README.md."""

import json
import pathlib

HERE = pathlib.Path(__file__).parent
START, END = "<!-- tables: made by tables.py -->", "<!-- end of tables -->"


def main() -> None:
    path = HERE / "README.md"
    path.write_text(filled(path.read_text()))


def filled(text: str) -> str:
    """`text` with the tables of `results/` between its two marks."""
    head, rest = text.split(START)
    _, tail = rest.split(END)
    return f"{head}{START}\n\n{train_step()}\n\n{attacks()}\n\n{END}{tail}"


def train_step() -> str:
    return _all("train_step", render_train_step)


def attacks() -> str:
    return _all("attacks", render_attacks)


def render_train_step(result: dict) -> str:
    """The step's times, ratios and the check that all do the same work."""
    about = result["environment"]
    lines = [f"### Training step, {about['keras']}, {about['cpu']}", ""]
    for target in result["targets"]:
        ratio = target["ratio"]
        lines.append(
            f"- {target['group']}, {target['name']}: {ratio['median']:.2f} times the group's first "
            f"row ({ratio['low']:.2f} to {ratio['high']:.2f}); target at most "
            f"{target['limit']:.2f}: {'met' if target['met'] else 'missed'}."
        )
    lines += [
        "",
        "| group | variant | CPU ms a step | images/s | wall ms | ratio | trace s |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for row in result["rows"]:
        trace = f"{row['trace_cpu_s']:.1f}" if "trace_cpu_s" in row else ""
        lines.append(
            f"| {row['group']} | {row['name']} | {_span(row['cpu_ms'])} "
            f"| {1e3 * row['batch'] / row['cpu_ms']['median']:,.0f} "
            f"| {row['wall_ms']['median']:.1f} | {row['ratio']['median']:.2f} | {trace} |"
        )
    lines += [
        "",
        "Images/s: a batch by its CPU time. Ratio: to the first row of the group, paired within a "
        "round.",
    ]
    once = [row["once_cpu_ms"] for row in result["rows"] if "once_cpu_ms" in row]
    if once:
        lines[-1] += (
            " Trace: CPU seconds that the first call of `fit` spends beside its steps. Every later "
            f"call spends {min(once):.0f} to {max(once):.0f} CPU ms beside them (check of the "
            "data, iterator, shuffle buffer); neither is in the time of a step."
        )
    if result["same_work"]:
        lines += ["", "Same work? PGD-7 of each on one batch and network, briefly trained:", ""]
        lines += ["| attack | cross-entropy | largest change of a pixel |", "|---|--:|--:|"]
    for row in result["same_work"]:
        name, loss, size = row["name"], row["cross_entropy"], row["largest_change"]
        lines.append(f"| {name} | {loss:.4f} | {size:.7f} |")
    lines += _same_images(result.get("same_images"))
    return "\n".join(lines + _about(result))


def _same_images(rows) -> list[str]:
    if not rows:
        return []
    seeds, images = len(rows[0]["robust"]), rows[0]["images"]
    lines = [
        "",
        f"Same images? {images:,} of them in the same order, the examples of each for one compiled "
        f"step; accuracies on 1,000 test images in percent, PGD-20 with two restarts, for {seeds} "
        "seeds:",
        "",
        "| trained by | clean | PGD-20 |",
        "|---|--:|--:|",
    ]
    for row in rows:
        clean, robust = (", ".join(f"{v:.1f}" for v in row[key]) for key in ("clean", "robust"))
        lines.append(f"| {row['name']} | {clean} | {robust} |")
    return lines


def render_attacks(result: dict) -> str:
    """Strength and time of all contenders: in a ball, and by the smallest perturbation."""
    target, settings = result["target"], result["settings"]
    lines = [f"### Attacks, {result['environment']['keras']}", ""]
    lines += _verdicts(target)
    clean = ", ".join(f"{name} {value:.1f}%" for name, value in result["clean_accuracy"].items())
    eps = ", ".join(f"{norm} {value:g}" for norm, value in settings["eps"].items())
    lines += [f"Clean accuracy: {clean}. eps: {eps}.", ""]
    lines += [
        "| model | norm | attack | by | robust accuracy % | outside ball | largest excess "
        "| CPU ms an image | CPU s | wall s |",
        "|---|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in result["rows"]:
        if "robust_accuracy" in row:
            accuracy = f"{row['robust_accuracy']:.1f}"
            if row["robust_accuracy_inside"] != row["robust_accuracy"]:
                accuracy += f" ({row['robust_accuracy_inside']:.1f} inside)"
            outside, excess = row.get("outside_ball", ""), row.get("largest_excess")
            excess = "" if excess is None else f"{excess:.0e}"
            lines.append(f"{_cell(row)} | {accuracy} | {outside} | {excess} | {_times(row)} |")
    lines += [
        "",
        "Smallest perturbation, over the images that are classified right:",
        "",
        "| model | norm | attack | by | found % | median distortion "
        "| CPU ms an image | CPU s | wall s |",
        "|---|---|---|---|--:|--:|--:|--:|--:|",
    ]
    for row in result["rows"]:
        if "found" in row:
            median = "none" if row["median"] is None else f"{row['median']:.4f}"
            lines.append(f"{_cell(row)} | {row['found']:.0f} | {median} | {_times(row)} |")
    beyond = [r for r in result["rows"] if r["beyond_bounds"] > 0]
    lines += ["", "Examples outside the range [0, 1]: "]
    lines[-1] += ", ".join(
        sorted({f"{r['name']} (by {r['beyond_bounds']:.0e})" for r in beyond}) or ["none"]
    )
    lines[-1] += "."
    if result["failed"]:
        lines += ["", "Peers' attacks that raised:", ""]
        lines += [f"- {name}: `{error}`" for name, error in result["failed"].items()]
    return "\n".join(lines + _about(result))


def _verdicts(target) -> list[str]:
    """How ours compare with the strongest and with the fastest peers."""
    lines = []
    if target["worst_points"] is not None:
        lines += [
            "In a ball, our attack against the strongest peer's, worst case over all rows: "
            f"{target['worst_points']:+.1f} points of robust accuracy (negative: ours is the "
            f"stronger everywhere); target at most {target['limit_points']:+.1f}."
        ]
    if target["worst_ratio"] is not None:
        lines += [
            "Smallest perturbations, our median over the smallest peer's, worst case: "
            f"{target['worst_ratio']:.3f}; target at most {target['limit_ratio']:.2f}."
        ]
    if lines:
        lines += ["Targets " + ("met." if target["met"] else "missed.")]
        cases = [
            f"{attack} {norm} ({model}): {ratio:.2f} times {peer}"
            for model, norm, attack, peer, ratio in target["slower"]
        ]
        lines += ["Slower than a peer on TensorFlow: " + ("; ".join(cases) or "nowhere") + "."]
    return [part for line in lines for part in (line, "")]


def _cell(row) -> str:
    return f"| {row['model']} | {row['norm']} | {row['attack']} | {row['name']}"


def _times(row) -> str:
    return f"{row['cpu_ms']:.2f} | {row['cpu_s']:.2f} | {row['wall_s']:.2f}"


def _all(name, render) -> str:
    paths = sorted((HERE / "results").glob(f"{name}_*.json"))
    made = [render(json.loads(path.read_text())) for path in paths]
    return "\n\n".join(made) or f"`{name}.py`: not measured yet in this form."


def _span(spread) -> str:
    return f"{spread['median']:.1f} [{spread['low']:.1f}, {spread['high']:.1f}]"


def _about(result) -> list[str]:
    env = result["environment"]
    packages = ("tensorflow", "adversarial-robustness-toolbox", "foolbox", "cleverhans")
    packages += ("neural-structured-learning", "torch")
    versions = ", ".join(f"{name} {env[name]}" for name in packages if env.get(name))
    lines = [
        "",
        f"`{env['command']}`, {env['date']}, commit {env['commit']}: {env['cpu']}, one of "
        f"{env['cores']} cores, one thread; Python {env['python']}, {env['keras']}, {versions}.",
    ]
    if result["left_out"]:
        lines += ["Left out: " + "; ".join(f"{k} ({v})" for k, v in result["left_out"].items())]
    return lines


if __name__ == "__main__":
    main()
