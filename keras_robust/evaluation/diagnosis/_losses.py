"""Losses: the same attack climbing others finds as much, unless one of them is blind."""

from keras_robust import losses
from keras_robust.evaluation.diagnosis._finding import finding, grade, percent, worst
from keras_robust.evaluation.diagnosis._subject import Subject

# What the plain cross-entropy misses and the log odds find: the two have the same direction, so
# that in exact arithmetic it is nothing.
_SATURATED = (1.0, 5.0)
# Margin and log odds differ by a few points on models that are what they seem.
_OTHER_LOSS = (3.0, 10.0)


def check_losses(subject: Subject) -> dict:
    """PGD-20 with the plain cross-entropy, the log odds, the margin and the DLR loss.

    Cross-entropy and log odds differ by a positive factor for each image, so that PGD is the
    same with either until float32 rounds: "warning" when the cross-entropy leaves more than 1
    point more, "suspicious" above 5. The loss of the attack given is compared with the best of
    all: "warning" above 3 points, which margin and cross-entropy differ by on honest models,
    "suspicious" above 10. Croce and Hein 2020, https://arxiv.org/abs/2003.01690, section 4.
    """
    subject.needs_gradient()
    runs = {"cross-entropy": losses.cross_entropy, "log odds": "ce", "margin": "margin"}
    if subject.classes > 2:
        runs["DLR"] = "dlr"
    broken = {name: subject.broken(subject.pgd(loss=loss)) for name, loss in runs.items()}
    own = subject.broken(subject.pgd())
    accuracy = {name: subject.accuracy(found) for name, found in broken.items()}
    best = min(accuracy, key=accuracy.get)
    blind = int(broken["log odds"].sum() - broken["cross-entropy"].sum())
    weaker = int(broken[best].sum() - own.sum())
    numbers = {
        "accuracy": accuracy,
        "cross_entropy_misses_points": 100 * blind / subject.images,
        "loss_given_misses_points": 100 * weaker / subject.images,
    }
    saturated = grade(blind, subject.images, *_SATURATED)
    other = grade(weaker, subject.images, *_OTHER_LOSS)
    meaning = []
    if saturated != "ok":
        meaning.append(
            f"PGD on the plain cross-entropy leaves {percent(accuracy['cross-entropy'])}, the "
            f"same PGD on the log odds {percent(accuracy['log odds'])}: the softmax is "
            "saturated, and the cross-entropy of confident images rounds to zero together with "
            "its gradient. What looks like robustness is the number format. Use attacks on "
            'logits (loss="ce" here, which is the log odds, "margin" or "dlr").'
        )
    if other != "ok" and saturated == "ok":
        meaning.append(
            f"The loss of the attack given leaves {100 * weaker / subject.images:.1f} points more "
            f"than {best}. Attack with several losses and count the worst for each image: "
            "kr.attacks.AutoAttack does."
        )
    elif other != "ok":
        meaning.append("The attack given climbs a loss that misses them: change it.")
    if not meaning:
        meaning.append("All losses find about the same, and none of them rounds to zero.")
    return finding("losses", worst([saturated, other]), " ".join(meaning), numbers)
