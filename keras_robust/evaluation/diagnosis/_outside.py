"""Outside views: attacks that need no gradient must not beat those that have it."""

import numpy as np

from keras_robust._seed import as_seed, fold, normal
from keras_robust.evaluation.diagnosis._finding import finding, grade, percent
from keras_robust.evaluation.diagnosis._subject import QUERIES, Subject

_POINTS = 40
# Square finds about a point that PGD with several losses does not on honest models.
_SQUARE = (1.0, 5.0)
# A random point needs more luck than PGD, which begins at one.
_RANDOM = (0.5, 2.0)


def check_black_box(subject: Subject) -> dict:
    """Images that Square breaks with 300 queries, and no gradient attack of this diagnosis.

    White-box attacks know all that Square knows. "warning" above 1 point of all images,
    "suspicious" above 5. Carlini et al. 2019, https://arxiv.org/abs/1902.06705.
    """
    square = subject.broken(subject.square())
    numbers = {"accuracy": {f"Square-{QUERIES}": subject.accuracy(square)}}
    check = "black box against white box"
    if subject.model is None:
        meaning = (
            f"Asked for its outputs only, it keeps {percent(subject.accuracy(square))} against "
            f"{QUERIES} queries of Square. There are no gradients to compare with."
        )
        return finding(check, "ok", meaning, numbers)
    white = subject.white_box()
    extra = int(np.sum(square & ~white))
    numbers["accuracy"]["gradient attacks together"] = subject.accuracy(white)
    numbers["only_square_share"] = extra / subject.images
    verdict = grade(extra, subject.images, *_SQUARE)
    if verdict == "ok":
        meaning = "Random search finds next to nothing that gradients did not."
    else:
        meaning = (
            f"{QUERIES} blind queries break {percent(extra / subject.images)} of the images that "
            "no gradient attack broke, though these know the model and the search does not. Its "
            "gradient misleads. Count images that Square breaks too (kr.attacks.AutoAttack "
            "includes it), with 5,000 queries."
        )
    return finding(check, verdict, meaning, numbers)


def check_random(subject: Subject) -> dict:
    """Images that one of 40 random points of the ball breaks, and no gradient attack.

    Half of the points are drawn evenly from the ball, half are its corners in a random direction.
    "warning" above 0.5 points of all images, "suspicious" above 2. Athalye et al. 2018,
    https://arxiv.org/abs/1802.00420, section 3.1.
    """
    broken = np.zeros(len(subject.y), bool)
    for index, (rows, count) in enumerate(subject.batches()):
        seed = fold(as_seed(subject.seed), index)
        for number in range(_POINTS):
            x = _random_point(subject, rows, fold(seed, number), corner=number % 2 == 1)
            broken[rows[:count]] |= subject.fooled(x, rows)[:count]
    check = "random against gradient"
    numbers = {"accuracy": {f"{_POINTS} random points": subject.accuracy(broken)}}
    if subject.model is None:
        meaning = (
            f"{_POINTS} random points of the ball leave {percent(subject.accuracy(broken))}. There "
            "are no gradients to compare with."
        )
        return finding(check, "ok", meaning, numbers)
    white = subject.white_box()
    extra = int(np.sum(broken & ~white))
    numbers["accuracy"]["gradient attacks together"] = subject.accuracy(white)
    numbers["only_random_share"] = extra / subject.images
    verdict = grade(extra, subject.images, *_RANDOM)
    if verdict == "ok":
        meaning = "Gradients break all that random points of the ball break."
    else:
        meaning = (
            f"Random points of the ball break {percent(extra / subject.images)} of the images that "
            "no gradient attack broke: here following the gradient is worse than guessing. The "
            "model masks its gradient or is random itself; use kr.attacks.Square."
        )
    return finding(check, verdict, meaning, numbers)


def _random_point(subject, rows, seed, corner) -> np.ndarray:
    x, ball = subject.x[rows], subject.ball
    delta = ball.corner(normal(x.shape, seed), x) if corner else ball.random(x, seed)
    return ball.place(x, delta).numpy()
