"""The report as a table for a terminal."""

import textwrap

from keras_robust.evaluation._artifacts import KINDS

WIDTH = 108


def format_table(data: dict) -> str:
    """Rows of artifacts, percentages and units; broken into blocks that fit `WIDTH` columns."""
    artifacts = data["artifacts"]
    columns = _columns(data)
    first = _align(["artifact", *(_clip(name, 28) for name in artifacts)], left=True)
    cells = [_align([head, *(value(a) for a in artifacts.values())]) for head, value in columns]
    blocks, block, width = [], [first], len(first[0])
    for column in cells:
        if width + 2 + len(column[0]) > WIDTH and len(block) > 1:
            blocks.append(block)
            block, width = [first], len(first[0])
        block.append(column)
        width += 2 + len(column[0])
    blocks.append(block)
    lines = [data["title"], _about(data), ""]
    for block in blocks:
        rows = ["  ".join(cells).rstrip() for cells in zip(*block, strict=True)]
        lines += [rows[0], "-" * max(map(len, rows)), *rows[1:], ""]
    return "\n".join(lines + _foot(data))


def _columns(data):
    yield "kind", lambda a: KINDS[a["kind"]]
    yield "clean %", lambda a: percent(a["clean_accuracy"])
    for attack in shares(data):
        name = attack["name"]
        yield f"{_clip(name, 20)} %", lambda a, name=name: percent(a["robust_accuracy"][name])
    if has_worst(data):
        yield "worst %", lambda a: percent(a["worst_case"])
    for attack in searches(data):
        name, head = attack["name"], f"{_clip(attack['name'], 16)} {attack['norm']}"
        yield head, lambda a, name=name: _median(a["distortion"][name])
    if all("corruptions" in a for a in data["artifacts"].values()):
        yield "corrupted %", lambda a: percent(1 - a["corruptions"]["mean_error"])
    yield "size KB", lambda a: kilobytes(a["bytes"])
    yield "gzip KB", lambda a: kilobytes(a["gzip_bytes"])
    yield "ms/image", lambda a: milliseconds(a["latency_ms"])


def shares(data: dict) -> list[dict]:
    """The attacks that have a column of accuracies."""
    return [a for a in data["attacks"] if a["kind"] != "search" and not a["added"]]


def searches(data: dict) -> list[dict]:
    """The attacks that have a column of distances."""
    return [a for a in data["attacks"] if a["kind"] == "search"]


def has_worst(data: dict) -> bool:
    """Whether the worst case says more than the only column of accuracies."""
    balls = [a for a in data["attacks"] if a["kind"] == "ball"]
    return len(balls) > 1 or (len(balls) == 1 and len(shares(data)) > 1)


def threat(attack: dict) -> str:
    """The norm and radius of an attack."""
    return attack["norm"] if attack["eps"] is None else f"{attack['norm']} {radius(attack['eps'])}"


def noun(data: dict) -> str:
    """What the inputs are called."""
    return "images" if len(data["data"]["shape"]) > 1 else "inputs"


def percent(share: float | None) -> str:
    """A share in percent, one decimal, without the sign."""
    return "-" if share is None else f"{100 * share:.1f}"


def kilobytes(count: int | None) -> str:
    """Thousands of bytes, one decimal."""
    return "-" if count is None else f"{count / 1000:,.1f}"


def milliseconds(value: float) -> str:
    """Two decimals, or two significant digits where these are more."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def radius(eps: float) -> str:
    """An eps as people write it: of 255 where it is such a number, else as a decimal."""
    of_255 = eps * 255
    if abs(of_255 - round(of_255)) < 1e-6 and 0 < of_255 <= 64 and len(f"{eps:.6g}") > 6:
        return f"{round(of_255)}/255"
    return f"{eps:.4g}"


def _median(found) -> str:
    return "-" if found["median"] is None else f"{found['median']:.3g}"


def _about(data) -> str:
    attacks = ", ".join(f"{a['name']} ({threat(a)})" for a in data["attacks"] if not a["added"])
    return f"{data['data']['images']:,} {noun(data)}, {data['data']['classes']} classes; {attacks}"


def _foot(data) -> list[str]:
    widest = max(
        (high - low) / 2
        for artifact in data["artifacts"].values()
        for low, high in (
            artifact["clean_interval"],
            artifact["worst_case_interval"] or (0, 0),
            *artifact["robust_interval"].values(),
        )
    )
    notes = [f"95% intervals reach at most {100 * widest:.1f} points to either side (Wilson)."]
    notes.append("1 KB = 1000 bytes; models in memory count as float32 .tflite files.")
    if searches(data):
        notes.append("Searches: the median distance of the perturbations found, in their norm.")
    return [line for note in notes + data["notes"][1:] for line in textwrap.wrap(note, WIDTH)]


def _align(cells, left=False) -> list[str]:
    width = max(map(len, cells))
    return [cell.ljust(width) if left else cell.rjust(width) for cell in cells]


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
