"""Budget: more steps, more restarts, and one step against many."""

import numpy as np

from keras_robust.attacks import FGSM, Ascent
from keras_robust.evaluation.diagnosis._finding import finding, grade, percent, worst
from keras_robust.evaluation.diagnosis._subject import STEPS, Subject

_STEPS = (5, 10, STEPS, 50, 100)
_RESTARTS = 5
# Points of accuracy that a larger budget may still take off.
_SHORT = 1.0
# Up to 3 points on adversarially trained networks at twice the eps of their training.
_RUGGED = (3.0, 10.0)
# More steps from the same start may lose an image on the edge, not a share of all.
_WEAKER = (2.0, 5.0)
_ONE_STEP = (1.0, 5.0)


def check_steps(subject: Subject) -> dict:
    """PGD with 5, 10, 20, 50 and 100 steps of `2.5 * eps / steps`, and the attack given.

    "warning" when the attack given, or PGD with 50 steps, leaves more than 1 point more than
    the best: it stops too early. When more steps find fewer images, a smooth loss is not what is
    climbed: "warning" above 2 points, "suspicious" above 5. Carlini et al. 2019,
    https://arxiv.org/abs/1902.06705.
    """
    subject.needs_gradient()
    found = {steps: subject.broken(subject.pgd(steps=steps)) for steps in _STEPS}
    counts = [int(broken.sum()) for broken in found.values()]
    accuracy = {f"PGD-{steps}": subject.accuracy(broken) for steps, broken in found.items()}
    most = max(counts)
    lost = max(max(counts[:i]) - count for i, count in enumerate(counts) if i)
    unsettled = most - max(counts[:-1])
    given = None
    if isinstance(subject.given, Ascent):
        given = int(subject.broken(subject.given).sum())
        accuracy[f"given: {subject.given.name}"] = subject.accuracy(subject.broken(subject.given))
    missed = 0 if given is None else most - given
    numbers = {
        "accuracy": accuracy,
        "attack_given_misses_points": 100 * missed / subject.images,
        "last_doubling_gains_points": 100 * unsettled / subject.images,
        "lost_by_more_steps_points": 100 * lost / subject.images,
    }
    weaker = grade(lost, subject.images, *_WEAKER)
    short = grade(missed, subject.images, _SHORT, 100)
    slow = grade(unsettled, subject.images, _SHORT, 100)
    parts = []
    if weaker != "ok":
        parts.append(
            f"PGD with more steps finds up to {100 * lost / subject.images:.1f} points fewer "
            "images. On a smooth loss smaller steps climb at least as high, so the gradient is "
            "not the loss's: look for rounding, randomness or a hand-written gradient."
        )
    if short != "ok":
        enough = min(steps for steps, count in zip(_STEPS, counts) if count >= most - 2)
        parts.append(
            f"The attack given leaves {percent(subject.accuracy(subject.broken(subject.given)))} "
            f"where PGD-{enough} leaves {percent(accuracy[f'PGD-{enough}'])}: it is too weak for "
            f"this model. Take at least {enough} steps of 2.5 * eps / steps, or "
            "kr.attacks.AutoAttack."
        )
    elif slow != "ok":
        parts.append(
            "Doubling 50 steps still breaks more images: PGD has not arrived. Take 200 steps or "
            "more, or kr.attacks.APGD, which fits its steps to the loss."
        )
    if not parts:
        parts.append("More steps break no more images: the attack has arrived.")
    return finding("steps", worst([weaker, short, slow]), " ".join(parts), numbers)


def check_restarts(subject: Subject) -> dict:
    """PGD-20 from 1 random start against 5.

    "warning" when five starts take off more than 3 points, "suspicious" above 10: then where the
    climb ends depends on where it begins, as in a loss full of false peaks.
    """
    subject.needs_gradient()
    # One attack five times, not one with five restarts, which would be traced anew.
    starts = [subject.broken(subject.pgd(), start=number) for number in range(_RESTARTS)]
    one, many = starts[0], np.logical_or.reduce(starts)
    gained = int(many.sum() - one.sum())
    points = 100 * gained / subject.images
    numbers = {
        "accuracy": {
            "1 start": subject.accuracy(one),
            f"{_RESTARTS} starts": subject.accuracy(many),
        },
        "gained_points": points,
    }
    verdict = grade(gained, subject.images, *_RUGGED)
    if verdict == "ok":
        meaning = "Starting anywhere in the ball ends at about the same: one start is enough."
    else:
        meaning = (
            f"Five starts break {points:.1f} points more than one: where the climb ends depends "
            "on where it begins. Attack with restarts=5 or more, or with kr.attacks.AutoAttack."
        )
    if verdict == "suspicious":
        meaning += " A loss with that many false peaks hides more than restarts can find."
    return finding("restarts", verdict, meaning, numbers)


def check_single_step(subject: Subject) -> dict:
    """FGSM against PGD-20 in the same ball.

    Many small steps can do all that one can. "warning" when FGSM leaves more than 1 point less,
    "suspicious" above 5. Athalye et al. 2018, https://arxiv.org/abs/1802.00420, section 3.1.
    """
    subject.needs_gradient()
    fgsm = FGSM(subject.ball.eps, subject.ball.norm, subject.loss, bounds=subject.ball.bounds)
    single, many = subject.broken(fgsm), subject.broken(subject.pgd())
    excess = int(single.sum()) - int(many.sum())
    numbers = {
        "accuracy": {"FGSM": subject.accuracy(single), f"PGD-{STEPS}": subject.accuracy(many)},
        "only_fgsm_share": float(np.sum(single & ~many) / subject.images),
    }
    verdict = grade(excess, subject.images, *_ONE_STEP)
    if verdict == "ok":
        meaning = f"FGSM finds no more than PGD-{STEPS}, but for an image or two by chance."
    else:
        meaning = (
            f"One step breaks {100 * excess / subject.images:.1f} points more than {STEPS} small "
            "ones. That is impossible on a smooth loss: near the images the gradient leads "
            "nowhere, and only a leap gets past. The model masks its gradient; don't rely on "
            "gradient attacks alone."
        )
    return finding("single step", verdict, meaning, numbers)
