"""Radius: the curve of accuracy against eps begins at the clean accuracy and ends at zero."""

import math

import numpy as np

from keras_robust.evaluation.diagnosis._finding import finding, grade, percent, worst
from keras_robust.evaluation.diagnosis._subject import Subject

_FACTORS = (0.001, 0.25, 0.5, 1.0, 2.0, 4.0)
_STANDING = (1.0, 5.0)
_RISE = (2.0, 5.0)
# Robust models have images next to the boundary: a thousandth of eps may break a few.
_JUMP = (1.0, 5.0)


def check_radius(subject: Subject) -> dict:
    """Accuracy at eps times .001, .25, .5, 1, 2, 4, and with no limit but the bounds.

    PGD-20, or Square where there are no gradients. Whoever may change every pixel at will shows
    the model another class: "warning" when more than 1 point stands against all radii together,
    "suspicious" above 5. A ball holds all smaller ones: accuracy that rises with eps is a
    "warning" above 2 points and "suspicious" above 5. A thousandth of eps must leave the clean
    accuracy: "warning" above 1 point, "suspicious" above 5. Athalye et al. 2018,
    https://arxiv.org/abs/1802.00420, section 3.1.
    """
    make = subject.square if subject.model is None else subject.pgd
    whole = _whole_box(subject)
    radii = [eps for f in _FACTORS if (eps := f * subject.ball.eps) < whole]
    runs = {eps: subject.broken(make(eps=eps)) for eps in (*radii, whole)}
    counts = [int(runs[eps].sum()) for eps in radii]
    standing = ~np.logical_or.reduce(list(runs.values()))
    rise = max((a - b for a, b in zip(counts, counts[1:])), default=0)
    # A ball as large as the whole box has no small radius to look at.
    jump = counts[0] if counts else 0
    clean = len(subject.y) / subject.images
    numbers = {
        "accuracy": {
            "clean": clean,
            **{f"eps {eps:.3g}": subject.accuracy(runs[eps]) for eps in radii},
            "no limit": subject.accuracy(runs[whole]),
        },
        "standing_at_no_limit_share": float(standing.sum() / subject.images),
        "rise_with_eps_points": 100 * max(rise, 0) / subject.images,
        "lost_at_a_thousandth_of_eps_points": 100 * jump / subject.images,
    }
    ends = grade(int(standing.sum()), subject.images, *_STANDING)
    rises = grade(rise, subject.images, *_RISE)
    begins = grade(jump, subject.images, *_JUMP)
    parts = []
    if ends != "ok":
        parts.append(
            f"{percent(standing.sum() / subject.images)} of the images withstand "
            f"{'a search' if subject.model is None else 'PGD'} that may change every pixel as it "
            "likes. No model can be that robust, so the attack fails for another reason, and its "
            "numbers at smaller eps mean nothing. (A model that gives nearly all inputs one class "
            "is the harmless case.)"
        )
    if rises != "ok":
        parts.append(
            f"Accuracy rises by {100 * rise / subject.images:.1f} points from one eps to a larger "
            "one, though the larger ball holds the smaller: the attack gets lost."
        )
    if begins != "ok":
        parts.append(
            f"A thousandth of eps breaks {100 * jump / subject.images:.1f} points already: the "
            "outputs jump. Look for noise or rounding in the model, and check that eps and the "
            "images have the same units."
        )
    if not parts:
        parts.append("Accuracy falls steadily from the clean one to nothing as eps grows.")
    return finding("accuracy against eps", worst([ends, rises, begins]), " ".join(parts), numbers)


def _whole_box(subject) -> float:
    """The radius of a ball around any image that holds all images."""
    low, high = subject.ball.bounds
    pixels = math.prod(subject.x.shape[1:])
    return (high - low) * {"linf": 1.0, "l2": math.sqrt(pixels), "l1": pixels}[subject.ball.norm]
