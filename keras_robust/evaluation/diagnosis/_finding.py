"""What a check says: a verdict, its numbers and their meaning."""

VERDICTS = ("ok", "warning", "suspicious")

# One or two images more or less are chance, whatever share of a small sample they are.
_FEWEST = 3


class LeftOut(Exception):
    """A check that can't be made here; its text says why."""


def finding(check: str, verdict: str, meaning: str, numbers: dict) -> dict:
    """One entry of a report's "diagnosis", ready for JSON.

    Args:
        check: what was looked at, a few words.
        verdict: "ok", "warning" (numbers are a little too good, or incomplete) or "suspicious"
            (the model withstands the attack for another reason than being robust).
        meaning: what it means for the reader, and what to do.
        numbers: name -> number, or name -> dict of label -> number. Names that end in "_share"
            are shares in [0, 1], as are all under "accuracy"; "_points" are percentage points.
    """
    return {"check": check, "verdict": verdict, "numbers": numbers, "meaning": meaning}


def grade(count: int, images: int, warning: float, suspicious: float) -> str:
    """The verdict on `count` of `images` that should not be.

    Args:
        count: how many; below 3 it is always "ok".
        images: of how many, the ones misclassified when clean included.
        warning, suspicious: percentage points above which it is one.

    >>> [grade(count, 200, 1, 5) for count in (2, 3, 10, 11)]
    ['ok', 'warning', 'warning', 'suspicious']
    """
    points = 100 * count / images
    if count < _FEWEST or points <= warning:
        return "ok"
    return "suspicious" if points > suspicious else "warning"


def worst(verdicts) -> str:
    """The gravest of several verdicts.

    >>> worst(["ok", "suspicious", "warning"])
    'suspicious'
    """
    return max(verdicts, key=VERDICTS.index)


def percent(share: float) -> str:
    """A share as text.

    >>> percent(0.125)
    '12.5%'
    """
    return f"{100 * share:.1f}%"
