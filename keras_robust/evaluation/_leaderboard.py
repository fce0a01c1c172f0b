"""One line an artifact, as RobustBench ranks defences."""

from keras_robust.evaluation._columns import BALL
from keras_robust.evaluation._table import kilobytes, percent, radius

_THREATS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def leaderboard(artifacts: dict, attacks: list[dict], images: int) -> list[dict]:
    """The entries of all artifacts, the most robust first, under RobustBench's keys.

    Croce et al. 2021, https://arxiv.org/abs/2010.09670; its accuracies are percentages in text.
    `autoattack_acc` is None when no AutoAttack ran; `external` is the accuracy under all attacks
    with a radius, image by image, which is at most that.

    Args:
        artifacts: name -> results.
        attacks: as in the report.
        images: that were evaluated.
    """
    standard = next((a for a in attacks if a["type"] == "AutoAttack"), None)
    balls = [a for a in attacks if a["kind"] == BALL and not a["added"]]
    threat = standard or (balls[-1] if balls else None)
    entries = [
        {
            "name": name,
            "eps": threat and radius(threat["eps"]),
            "threat_model": threat and _THREATS.get(threat["norm"], threat["norm"]),
            "clean_acc": percent(found["clean_accuracy"]),
            "autoattack_acc": standard and percent(found["robust_accuracy"][standard["name"]]),
            "external": None if found["worst_case"] is None else percent(found["worst_case"]),
            "images": images,
            "bytes": found["bytes"],
        }
        for name, found in artifacts.items()
    ]
    return sorted(entries, key=lambda e: -float(e["external"] or 0))


def summary_lines(entries: list[dict]) -> str:
    """The entries as aligned text, a line each."""
    heads = ("name", "clean %", "AutoAttack %", "worst %", "eps", "norm", "KB")
    rows = [
        (
            entry["name"],
            entry["clean_acc"],
            entry["autoattack_acc"] or "-",
            entry["external"] or "-",
            entry["eps"] or "-",
            entry["threat_model"] or "-",
            kilobytes(entry["bytes"]),
        )
        for entry in entries
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (heads, *rows)
    )
