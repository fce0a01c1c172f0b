"""Diagnoses as text for a terminal and as a part of the web page."""

import textwrap
from html import escape

from keras_robust.evaluation.diagnosis._finding import VERDICTS

_WIDTH = 108
_INDENT = " " * 14
# Classes of the report's style sheet, and what a reader without colours sees.
_MARKS = {
    "ok": ("right", "&#10003;"),
    "warning": ("caution", "!"),
    "suspicious": ("wrong", "&#10007;"),
}


def format_diagnosis(data: dict) -> str:
    """The diagnoses of a report for a terminal, at most 108 columns wide; "" without any.

    Args:
        data: of a report, with `artifacts[name]["diagnosis"]` where there is one.
    """
    blocks = []
    for name, findings in _diagnosed(data):
        lines = [f'Honesty checks of "{name}": {_count(findings)}']
        for found in findings:
            lines.append(f"  {found['verdict']:<12}{found['check']}")
            lines += _wrapped("; ".join(_numbers(found["numbers"])))
            lines += _wrapped(found["meaning"])
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def render_diagnosis(data: dict) -> str:
    """The same as HTML, a heading and a table for each artifact; "" without any."""
    parts = []
    for name, findings in _diagnosed(data):
        rows = "\n".join(map(_row, findings))
        parts.append(
            f'<h3>{escape(name)} <span class="note">{escape(_count(findings))}</span></h3>\n'
            '<div class="scroll"><table><thead><tr><th scope="col">check</th>'
            '<th scope="col" class="left">what it means</th><th scope="col" class="left">numbers'
            f"</th></tr></thead><tbody>\n{rows}\n</tbody></table></div>"
        )
    if not parts:
        return ""
    about = (
        "Whether robust accuracy is real. Suspicious: the model withstands the attack for another "
        "reason than being robust. Warning: the numbers are a little too good, or incomplete."
    )
    return f'<h2>Honesty checks</h2>\n<p class="note">{about}</p>\n' + "\n".join(parts)


def _row(found) -> str:
    shade, sign = _MARKS[found["verdict"]]
    numbers = "<br>".join(escape(line) for line in _numbers(found["numbers"]))
    return (
        f'<tr><th scope="row">{escape(found["check"])}<small><span class="{shade}">{sign} '
        f'{escape(found["verdict"])}</span></small></th><td class="left">'
        f'{escape(found["meaning"])}</td><td class="left">{numbers}</td></tr>'
    )


def _diagnosed(data):
    for name, artifact in data["artifacts"].items():
        if artifact.get("diagnosis"):
            yield name, artifact["diagnosis"]


def _count(findings) -> str:
    """How many of each verdict, the gravest first.

    >>> _count([{"verdict": "ok"}, {"verdict": "warning"}, {"verdict": "ok"}])
    '1 warning, 2 ok'
    """
    verdicts = [found["verdict"] for found in findings]
    counts = [(verdicts.count(verdict), verdict) for verdict in reversed(VERDICTS)]
    return ", ".join(f"{count} {verdict}" for count, verdict in counts if count)


def _numbers(numbers) -> list[str]:
    """One line for each group of numbers, with their units.

    >>> _numbers({"accuracy": {"clean": 0.9}, "gained_points": 1.5, "largest_logit": 12.0})
    ['accuracy: clean 90.0%', 'gained: 1.5 points', 'largest logit: 12']
    """
    lines = []
    for name, value in numbers.items():
        if isinstance(value, dict):
            items = [f"{label} {_value(name, number)}" for label, number in value.items()]
            lines.append(f"{_label(name)}: {', '.join(items)}")
        else:
            lines.append(f"{_label(name)}: {_value(name, value)}")
    return lines


def _label(name) -> str:
    for unit in ("_share", "_points"):
        name = name.removesuffix(unit)
    return name.replace("_", " ")


def _value(name, number) -> str:
    if name == "accuracy" or name.endswith("_share"):
        return f"{100 * number:.1f}%"
    if name.endswith("_points"):
        return f"{number:.1f} points"
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:,.0f}"


def _wrapped(text) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)
