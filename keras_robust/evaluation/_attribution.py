"""Who broke the images, and what corruptions cost, as HTML."""

from html import escape

from keras_robust._marks import mark_of
from keras_robust.evaluation._plots_corruption import corruption_plot
from keras_robust.evaluation._table import noun, percent

_STANDING, _WRONG = "#0072b2", "#c3cad4"


def render_attribution(data: dict) -> str:
    """For each artifact a bar of all images: standing, broken by each attack, wrong anyway."""
    balls = [a for a in data["attacks"] if a["kind"] == "ball"]
    if not balls:
        return ""
    blocks = "\n".join(_block(name, a, data) for name, a in data["artifacts"].items())
    return (
        "<h2>What broke the images</h2>\n"
        '<p class="note">Each image counts for the attack that broke it first, in the order in '
        "which they ran. An attack that comes late finds only what the others left.</p>\n"
        f'<div class="cards">\n{blocks}\n</div>'
    )


def _block(name, artifact, data) -> str:
    total = data["data"]["images"]
    wrong = total - round(artifact["clean_accuracy"] * total)
    broken = {label: count for label, count in artifact["broken_by"].items() if count}
    standing = total - wrong - sum(broken.values())
    parts = [(_STANDING, "withstood all", standing)]
    for index, (label, count) in enumerate(broken.items(), 1):
        parts.append((mark_of(index).color, _made(label, name), count))
    parts.append((_WRONG, "wrong without attack", wrong))
    bar = "".join(
        f'<i style="width:{100 * count / total:.3f}%;background:{color}" '
        f'title="{escape(label)}: {count:,}"></i>'
        for color, label, count in parts
        if count
    )
    legend = "".join(
        f'<li><span class="dot" style="background:{color}"></span><span>{escape(label)}: {count:,} '
        f"({percent(count / total)}%)</span></li>"
        for color, label, count in parts
    )
    return (
        f'<div class="card"><h3>{escape(name)}</h3><div class="stack">{bar}</div>'
        f'<ul class="legend">{legend}</ul>{_tried(name, artifact)}{_queries(artifact, data)}</div>'
    )


def _made(label, name) -> str:
    """ "PGD-20@twin" as people say it; examples made on the artifact itself need no mention."""
    attack, _, source = label.partition("@")
    return attack if source == name else f"{attack} on {source}"


def _tried(name, artifact) -> str:
    rest = [_made(label, name) for label, count in artifact["broken_by"].items() if not count]
    if not rest:
        return ""
    return f'<p class="note">Tried too, and broke no further image: {escape(", ".join(rest))}.</p>'


def _queries(artifact, data) -> str:
    if not artifact["queries"]:
        return ""
    counts = ", ".join(f"{attack} {count:,}" for attack, count in artifact["queries"].items())
    return (
        f'<p class="note">Asked directly, without gradients: {escape(counts)} queries of one '
        f"{escape(noun(data).removesuffix('s'))} each.</p>"
    )


def render_corruptions(data: dict) -> str:
    """A table of errors, the mean over the severities of each corruption; "" without any."""
    artifacts = {n: a["corruptions"] for n, a in data["artifacts"].items() if "corruptions" in a}
    if not artifacts:
        return ""
    names = list(dict.fromkeys(name for a in artifacts.values() for name in a["errors"]))
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in artifacts)
    rows = "".join(
        f'<tr><th scope="row">{escape(name.replace("_", " "))}</th>'
        + "".join(_error(a["errors"].get(name)) for a in artifacts.values())
        + "</tr>"
        for name in names
    )
    means = "".join(f"<td><b>{percent(a['mean_error'])}</b></td>" for a in artifacts.values())
    return (
        "<h2>Common corruptions</h2>\n"
        '<p class="note">Error in percent, the mean over the severities, which stand below it. No '
        "attack: images as a bad camera, weather or a codec would give them.</p>\n"
        f'<div class="plots">{corruption_plot(data)}</div>\n'
        f'<div class="scroll"><table><thead><tr><th scope="col">corruption</th>{heads}</tr></thead>'
        f'<tbody>{rows}<tr><th scope="row">mean</th>{means}</tr></tbody></table></div>'
    )


def _error(errors) -> str:
    if not errors:
        return "<td>-</td>"
    span = " ".join(f"{100 * error:.0f}" for error in errors)
    return f"<td>{percent(sum(errors) / len(errors))}<small>{span}</small></td>"
