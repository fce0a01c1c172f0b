"""Two reports side by side, with how sure each difference is."""

import collections.abc
import dataclasses
import math

from keras_robust.evaluation._columns import BALL
from keras_robust.evaluation._results import STANDING, WRONG
from keras_robust.evaluation._table import kilobytes, milliseconds, percent


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What `report.compare` found; print it, or take the numbers from `to_dict()`.

    Attributes:
        rows: one a compared number: "artifact" (the pair's names), "what", "before", "after",
            "difference" (after minus before), "statement" (how sure), and for paired accuracies
            "gained", "lost" (images) and "p".
        notes: what the reader must know of the two reports.
    """

    rows: tuple[dict, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict:
        """Everything, ready for JSON."""
        return {"rows": [dict(row) for row in self.rows], "notes": list(self.notes)}

    def __str__(self) -> str:
        heads = ("artifact", "what", "before", "after", "change", "")
        cells = [heads] + [
            (r["artifact"], r["what"], *_texts(r), r["statement"]) for r in self.rows
        ]
        widths = [max(len(row[place]) for row in cells) for place in range(5)]
        lines = [
            "  ".join(
                row[place].ljust(widths[place]) if place < 2 else row[place].rjust(widths[place])
                for place in range(5)
            )
            + f"  {row[5]}"
            for row in cells
        ]
        return "\n".join([line.rstrip() for line in lines] + list(self.notes))


def compare(before: dict, after: dict, pairs=None) -> Comparison:
    """What changed from one report's data to another's.

    Accuracies on the same images are compared image by image, with McNemar's exact test
    (1947, doi:10.1007/BF02295996): of the images on which the two differ, how unlikely is it
    that chance divides them so unevenly? Otherwise their 95% intervals are.

    Args:
        before, after: data of reports.
        pairs: dict name in `before` -> name in `after`; None pairs equal names.

    Raises:
        TypeError, ValueError: no such artifacts, or none in common.
    """
    pairs = _check_pairs(before["artifacts"], after["artifacts"], pairs)
    same = before["data"].get("fingerprint") == after["data"].get("fingerprint")
    shared = [a["name"] for a in before["attacks"] if a in after["attacks"]]
    rows = []
    for old_name, new_name in pairs.items():
        old, new = before["artifacts"][old_name], after["artifacts"][new_name]
        label = old_name if old_name == new_name else f"{old_name} -> {new_name}"
        rows += [{"artifact": label, **row} for row in _rows(old, new, shared, same)]
    return Comparison(tuple(rows), tuple(_notes(before, after, same, shared)))


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p value of McNemar's exact test.

    Args:
        gained, lost: images that only the one, and only the other, gets right.

    >>> round(mcnemar(1, 9), 4)
    0.0215
    """
    count = gained + lost
    tail = sum(math.comb(count, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / 2**count)


def _rows(old, new, shared, same):
    paired = same and None not in (old.get("outcomes"), new.get("outcomes"))
    clean = _paired(old, new, lambda outcome: outcome != WRONG) if paired else None
    yield _accuracy("clean", *_shares(old, new, "clean_accuracy", "clean_interval"), clean)
    for name in shared:
        if all(name in artifact["robust_accuracy"] for artifact in (old, new)):
            shares = [(a["robust_accuracy"][name], a["robust_interval"][name]) for a in (old, new)]
            yield _accuracy(name, *shares, None)
    if None not in (old["worst_case"], new["worst_case"]):
        worst = _paired(old, new, lambda outcome: outcome == STANDING) if paired else None
        shares = _shares(old, new, "worst_case", "worst_case_interval")
        yield _accuracy("worst case", *shares, worst)
    for what, key in (("size", "bytes"), ("gzipped", "gzip_bytes"), ("latency", "latency_ms")):
        if None not in (old[key], new[key]):
            yield _row(what, old[key], new[key], f"{new[key] / old[key]:.3g} times")


def _shares(old, new, key, interval):
    return [(artifact[key], artifact[interval]) for artifact in (old, new)]


def _paired(old, new, good) -> tuple[int, int]:
    """Images gained and lost."""
    pairs = [(good(a), good(b)) for a, b in zip(old["outcomes"], new["outcomes"], strict=True)]
    return sum(b and not a for a, b in pairs), sum(a and not b for a, b in pairs)


def _accuracy(what, old, new, paired) -> dict:
    """A row of two (share, interval), with the images gained and lost where they are known."""
    (share, (low, high)), (other, (other_low, other_high)) = old, new
    if paired is None:
        apart = high < other_low or other_high < low
        statement = "95% intervals apart" if apart else "95% intervals overlap: may be chance"
        return _row(what, share, other, statement)
    gained, lost = paired
    p = mcnemar(gained, lost)
    verdict = "may be chance" if p >= 0.05 else "hardly chance"
    statement = f"+{gained} -{lost} images, McNemar p = {p:.2g}: {verdict}"
    return {**_row(what, share, other, statement), "gained": gained, "lost": lost, "p": p}


def _row(what, old, new, statement) -> dict:
    return {
        "what": what,
        "before": old,
        "after": new,
        "difference": new - old,
        "statement": statement,
    }


def _texts(row) -> tuple[str, str, str]:
    """Before, after and difference with their units."""
    old, new, gap = row["before"], row["after"], row["difference"]
    if row["what"] in ("size", "gzipped"):
        return f"{kilobytes(old)} KB", f"{kilobytes(new)} KB", f"{gap / 1000:+,.1f} KB"
    if row["what"] == "latency":
        return f"{milliseconds(old)} ms", f"{milliseconds(new)} ms", f"{gap:+.2f} ms"
    return f"{percent(old)}%", f"{percent(new)}%", f"{100 * gap:+.1f}"


def _notes(before, after, same, shared):
    if not same:
        yield "Not the same images: accuracies are compared by their intervals, not image by image."
    ball = [
        {a["name"]: a["config"] for a in data["attacks"] if a["kind"] == BALL}
        for data in (before, after)
    ]
    if ball[0] != ball[1]:
        alike = f" Alike are {', '.join(shared)}." if shared else ""
        yield f"Not the same attacks: the worst cases are over different ones.{alike}"
    machines = [data["environment"].get("platform") for data in (before, after)]
    if machines[0] != machines[1]:
        yield "Not the same machine: latencies do not compare."


def _check_pairs(old, new, pairs) -> dict[str, str]:
    if pairs is None:
        pairs = {name: name for name in old if name in new}
        if not pairs:
            raise ValueError(
                f"The reports have no artifact of the same name: {', '.join(old)}; and "
                f"{', '.join(new)}. Say which belong together: pairs={{{next(iter(old))!r}: "
                f"{next(iter(new))!r}}}."
            )
        return pairs
    if not isinstance(pairs, collections.abc.Mapping) or not pairs:
        raise TypeError(
            "`pairs` must be a dict, name in this report -> name in the other, got "
            f"pairs={pairs!r}."
        )
    for one, two in pairs.items():
        for name, known in ((one, old), (two, new)):
            if name not in known:
                raise ValueError(
                    f"`pairs` names {name!r}, which is none of the artifacts: {', '.join(known)}."
                )
    return dict(pairs)
