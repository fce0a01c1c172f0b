"""Randomness: the same input gives the same logits, or the attack must average."""

import numpy as np
import tensorflow as tf

from keras_robust.attacks._attack import call_logits
from keras_robust.evaluation.diagnosis._finding import finding, grade
from keras_robust.evaluation.diagnosis._subject import STEPS, Subject

_REPEATS = 5
_EOT = 10
# Of the spread of an image's logits: parallel sums on a GPU differ by 1e-6 of it.
_SAME = 1e-4
# Points of images whose label changes.
_FLIPS = (1.0, 1.0)


def check_randomness(subject: Subject) -> dict:
    """Five predictions of the same images, and two without compiling.

    "warning" when the logits differ by more than 1e-4 of their spread, "suspicious" when more
    than 1 point of the labels change. Then one gradient is one draw of many, and the attack has
    to average them (expectation over transformation, Athalye et al. 2018,
    https://arxiv.org/abs/1802.00420, section 4.2).
    """
    groups = [[subject.logits, *(_logits(subject) for _ in range(_REPEATS - 1))]]
    if subject.model is not None:
        # Random numbers of Python and numpy are frozen into a compiled model, but not into an
        # eager call. Compared among themselves: the two round differently.
        groups.append([_eager_logits(subject) for _ in range(2)])
    spread = np.median(np.ptp(subject.logits, axis=-1))
    shift = max(float(np.abs(np.subtract(draws, draws[0])).max()) for draws in groups)
    changed = [np.ptp(np.argmax(draws, axis=-1), axis=0) > 0 for draws in groups]
    flips = int(np.sum(np.logical_or.reduce(changed)))
    relative = shift / max(float(spread), 1e-30)
    numbers = {
        "largest_logit_change": shift,
        "share_of_logit_spread": relative,
        "labels_change_share": flips / subject.images,
    }
    if relative <= _SAME:
        meaning = "The same input gives the same logits each time."
        return finding("randomness", "ok", meaning, numbers)
    verdict = "suspicious" if grade(flips, subject.images, *_FLIPS) != "ok" else "warning"
    text = _averaged(subject, numbers)
    meaning = (
        f"The same input gives other logits each time (labels change for {flips} images): the "
        f"model is random. An attack that looks once optimises against one draw and meets another. "
        f"{text}Attack with averaged gradients (PGD(eot={_EOT}) or more, AutoAttack(version="
        '"rand")), and expect all numbers here to vary from run to run.'
    )
    return finding("randomness", verdict, meaning, numbers)


def _averaged(subject, numbers) -> str:
    """What averaging over draws gains, where there are gradients."""
    if subject.model is None:
        return ""
    plain, averaged = subject.broken(subject.pgd()), subject.broken(subject.pgd(eot=_EOT))
    numbers["accuracy"] = {
        f"PGD-{STEPS}": subject.accuracy(plain),
        f"PGD-{STEPS}, {_EOT} draws a step": subject.accuracy(averaged),
    }
    gain = 100 * (int(averaged.sum()) - int(plain.sum())) / subject.images
    return f"Averaging {_EOT} draws in each step takes off {gain:.1f} points. "


def _logits(subject) -> np.ndarray:
    logits = np.empty_like(subject.logits)
    for rows, count in subject.batches():
        logits[rows[:count]] = subject.artifact.predict(subject.x[rows])[:count]
    return logits


def _eager_logits(subject) -> np.ndarray:
    logits = np.empty_like(subject.logits)
    for rows, count in subject.batches():
        logits[rows[:count]] = call_logits(subject.model, tf.constant(subject.x[rows]))[:count]
    return logits
