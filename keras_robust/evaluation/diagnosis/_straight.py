"""Straight-through gradients: past operations whose own gradient is zero or missing."""

import numpy as np

from keras_robust.evaluation.diagnosis._finding import finding, grade, percent
from keras_robust.evaluation.diagnosis._subject import STEPS, Subject

# As for Square: another way to the same images.
_HIDDEN = (1.0, 5.0)


def check_straight_through(subject: Subject) -> dict:
    """Images that PGD-20 breaks with straight-through gradients, and not with the model's own.

    "warning" above 1 point of all images, "suspicious" above 5: something in the model hides the
    gradient (BPDA, Athalye et al. 2018, https://arxiv.org/abs/1802.00420, section 4.1).
    """
    check = "straight through"
    wrapped = subject.artifact.straight_through
    if wrapped is None:
        subject.needs_gradient()
        return finding(check, "ok", _NOTHING_ROUNDS, {})
    through = subject.broken(subject.pgd(), model=wrapped)
    white = subject.white_box()
    extra = int(np.sum(through & ~white))
    numbers = {
        "accuracy": {
            f"PGD-{STEPS} straight through": subject.accuracy(through),
            "own gradients together": subject.accuracy(white),
        },
        "only_straight_through_share": extra / subject.images,
    }
    verdict = grade(extra, subject.images, *_HIDDEN)
    if verdict == "ok":
        meaning = "Nothing in the model hides a gradient that straight-through ones would reveal."
    else:
        meaning = (
            f"With the gradient taken straight through rounding and thresholds, PGD breaks "
            f"{percent(extra / subject.images)} of the images that the model's own gradient did "
            "not. The model hides its gradient. Evaluate it with examples made on "
            "kr.attacks.StraightThrough(model)."
        )
    return finding(check, verdict, meaning, numbers)


_NOTHING_ROUNDS = (
    "No rounding or threshold was found that a gradient could be passed through. (Inside a "
    "SavedModel, or a tf.function of the model's own, none can be.)"
)
