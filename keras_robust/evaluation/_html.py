"""The report as one web page that needs no other file."""

from html import escape

from keras_robust._marks import mark_of
from keras_robust.evaluation import _plots
from keras_robust.evaluation._artifacts import KINDS
from keras_robust.evaluation._attribution import render_attribution, render_corruptions
from keras_robust.evaluation._diagnosis import render_diagnosis
from keras_robust.evaluation._method import render_method
from keras_robust.evaluation._outcome import UNDEFINED
from keras_robust.evaluation._plots_canvas import figure_html
from keras_robust.evaluation._plots_classes import per_class_plot
from keras_robust.evaluation._plots_distortion import distortion_plot
from keras_robust.evaluation._style import STYLE
from keras_robust.evaluation._summary import summarise
from keras_robust.evaluation._table import (
    has_worst,
    kilobytes,
    milliseconds,
    noun,
    percent,
    radius,
    searches,
    shares,
    threat,
)


def render_page(data: dict) -> str:
    """HTML of a report's data; every name in it is escaped."""
    title = escape(data["title"])
    parts = [
        f"<h1>{title}</h1>",
        f'<p class="about">{_about(data)}</p>',
        f'<p class="summary">{escape(" ".join(summarise(data)))}</p>',
        "<h2>Results</h2>",
        _table(data),
        render_attribution(data),
        _plot_section(data),
        render_corruptions(data),
        _examples(data),
        render_diagnosis(data),
        "<h2>How it was measured</h2>",
        render_method(data),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _about(data) -> str:
    seen = data["data"]
    shape = " x ".join(str(length) for length in seen["shape"])
    return escape(
        f"{seen['images']:,} {noun(data)} of {shape}, "
        f"{seen['classes']} classes, {len(data['artifacts'])} "
        f"{'artifact' if len(data['artifacts']) == 1 else 'artifacts'}"
    )


def _table(data) -> str:
    heads = ['<th scope="col">artifact<small>kind</small></th>']
    heads.append('<th scope="col">clean<small>accuracy</small></th>')
    for attack in shares(data):
        heads.append(_head(attack["name"], threat(attack)))
    if has_worst(data):
        heads.append('<th scope="col">worst<small>per image</small></th>')
    for attack in searches(data):
        heads.append(_head(attack["name"], f"median {attack['norm']}"))
    heads += [
        f'<th scope="col">{head}<small>{unit}</small></th>'
        for head, unit in (("size", "KB"), ("gzipped", "KB"), ("latency", "ms an image"))
    ]
    rows = "\n".join(_row(name, a, data) for name, a in data["artifacts"].items())
    return (
        f'<div class="scroll"><table>\n<thead><tr>{"".join(heads)}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>\n"
        '<p class="note">Accuracies in percent, below them the 95% Wilson interval. Robust is what '
        "is classified correctly both clean and attacked. 1 KB is 1000 bytes.</p>"
    )


def _head(name, detail) -> str:
    return f'<th scope="col">{escape(name)}<small>{escape(detail)}</small></th>'


def _row(name, artifact, data) -> str:
    cells = [_share(artifact["clean_accuracy"], artifact["clean_interval"])]
    for attack in (a["name"] for a in shares(data)):
        cells.append(
            _share(artifact["robust_accuracy"][attack], artifact["robust_interval"][attack])
        )
    if has_worst(data):
        known = artifact["worst_case"] is not None
        worst = artifact["worst_case"], artifact["worst_case_interval"]
        cells.append(_share(*worst) if known else "<td>-</td>")
    for attack in searches(data):
        cells.append(_distance(artifact["distortion"][attack["name"]]))
    what = escape(artifact["size_of"] or "not measured")
    for count in (artifact["bytes"], artifact["gzip_bytes"]):
        cells.append(f'<td title="{what}">{kilobytes(count)}</td>')
    cells.append(f"<td>{milliseconds(artifact['latency_ms'])}</td>")
    kind = escape(KINDS[artifact["kind"]])
    return f'<tr><th scope="row">{escape(name)}<small>{kind}</small></th>{"".join(cells)}</tr>'


def _share(value, interval) -> str:
    low, high = interval
    span = f"{percent(low)}&ndash;{percent(high)}"
    return (
        f'<td title="95% interval {span}%">{percent(value)}<small>{span}</small>'
        f'<span class="bar"><i style="width:{100 * value:.1f}%"></i></span></td>'
    )


def _distance(found) -> str:
    median = "-" if found["median"] is None else f"{found['median']:.3g}"
    return f"<td>{median}<small>{percent(found['found'])}% found</small></td>"


def _plot_section(data) -> str:
    names = list(data["artifacts"])
    legend = [(mark_of(index).swatch(), name) for index, name in enumerate(names)]
    unsized = [name for name in names if not data["artifacts"][name]["gzip_bytes"]]
    missing = f" Without a size: {', '.join(unsized)}." if unsized else ""
    sweep = data["sweep"] or {"attack": "", "images": 0}
    sized = all(artifact["worst_case"] is not None for artifact in data["artifacts"].values())
    figures = [
        _figure(
            _plots.plot_sizes(data) if sized else None,
            "Robust accuracy against size",
            "Share that withstands every attack, with 95% intervals; models in memory count as "
            f"float32 .tflite files.{missing}",
            legend,
        ),
        _figure(
            _plots.plot_sweep(data),
            "Accuracy against eps",
            f"{sweep['attack']} on the first {sweep['images']:,} {noun(data)}. Equal curves lie on "
            "one another, the wider one below.",
            legend,
        ),
        _figure(
            _plots.plot_training(data),
            "Training",
            "Accuracy after each epoch on held-out data where there was any; solid: clean, dashed: "
            "under attack.",
            _training_legend(data),
        ),
        per_class_plot(data),
        distortion_plot(data),
    ]
    figures = [figure for figure in figures if figure]
    if not figures:
        return ""
    return '<h2>Plots</h2>\n<div class="plots">\n' + "\n".join(figures) + "\n</div>"


def _figure(drawing, title, text, legend) -> str:
    return "" if drawing is None else figure_html(title, text, drawing, legend)


def _training_legend(data):
    for name, kind, _ in _plots.training_series(data):
        mark = mark_of(_plots.history_index(data, name))
        robust = kind == "robust"
        label = f"{name}: {'under attack' if robust else 'clean'}"
        yield mark.swatch("4 2" if robust else "", hollow=robust), label


def _examples(data) -> str:
    examples = data["examples"]
    if not examples or not examples["images"]:
        return ""
    cards = "\n".join(_card(image, examples, data["data"]) for image in examples["images"])
    radii = f"{examples['norm']} eps {radius(examples['eps'])}"
    return (
        f"<h2>Images under {escape(examples['attack'])}</h2>\n"
        f'<p class="note">{escape(radii)}. {_scale(examples)} Chosen among the first images: those '
        "come first that one artifact gets wrong under attack and another does not.</p>\n"
        f'<div class="cards">\n{cards}\n</div>'
    )


def _scale(examples) -> str:
    if examples["norm"] == "linf" and examples["eps"]:
        low, high = examples["bounds"]
        gain = (high - low) / (2 * examples["eps"])
        return (
            "Perturbation: grey is no change, black and white are minus and plus eps "
            f"(amplified {gain:.3g} times)."
        )
    return (
        "Perturbation: grey is no change, black and white are the largest change of that image, "
        "given below it."
    )


def _card(image, examples, seen) -> str:
    names = seen["class_names"]
    truth = image["label"]
    trios = []
    for shown in image["shown"]:
        artifact, source = shown["artifact"], shown["source"]
        made = "" if source == artifact else f" (example made on {escape(source)})"
        largest = f"&plusmn;{radius(shown['largest_change'])}"
        trios.append(
            f'<div class="trio"><h4>{escape(artifact)}{made}</h4>'
            f"<div>{_image(image['clean'], 'clean')}clean: "
            f"{_verdict(names, shown['clean_prediction'], truth)}</div>"
            f"<div>{_image(shown['perturbation'], 'perturbation')}perturbation, {largest}</div>"
            f"<div>{_image(shown['adversarial'], 'adversarial')}attacked: "
            f"{_verdict(names, shown['prediction'], truth)}</div></div>"
        )
    return (
        f'<div class="card"><h3>{escape(names[truth])} <span class="note">(image '
        f"{image['index']})</span></h3>{''.join(trios)}</div>"
    )


def _image(png, alt) -> str:
    return f'<img alt="{alt}" src="data:image/png;base64,{escape(png)}">'


def _verdict(names, predicted, truth) -> str:
    right = predicted == truth
    sign = "&#10003;" if right else "&#10007;"
    shade = "right" if right else "wrong"
    name = "NaN logits" if predicted == UNDEFINED else names[predicted]
    return f'<span class="{shade}">{escape(name)}&nbsp;{sign}</span>'
