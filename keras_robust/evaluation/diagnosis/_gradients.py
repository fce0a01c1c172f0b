"""Gradients: whether they exist, and whether they describe what the model does."""

import numpy as np
import tensorflow as tf

from keras_robust import losses
from keras_robust._seed import as_seed, fold, normal
from keras_robust.attacks import Ball
from keras_robust.attacks._attack import call_logits
from keras_robust.evaluation.diagnosis._finding import finding, grade, percent
from keras_robust.evaluation.diagnosis._subject import Subject, value_and_gradient

# Below it the softmax of a label is exactly 1 in float32, and the gradient of the
# cross-entropy has lost the label's own logit: log(2^24) = 16.6.
_ROUNDS_TO_ONE = 17.0
# An adversarially trained ReLU network has no such image, so that a few are something.
_VANISHED = (1.0, 5.0)
# Radii, as shares of eps, at which the gradient is compared with differences.
_SCALES = (1.0, 0.1, 0.01)
# Along the gradient, and at random.
_WAYS = 5
# Half of what the outputs do is not in the gradient: no image of a smooth network comes
# near at all three scales.
_EXPLAINED = 0.5
_UNEXPLAINED = (5.0, 20.0)


def check_gradients(subject: Subject) -> dict:
    """Share of images classified right whose gradient is exactly zero or not finite in float32.

    Of the cross-entropy, which saturation rounds to zero, and of the log odds, which vanish only
    when the network itself has no gradient. "warning" above 1% of those,
    "suspicious" above 5%: Carlini et al. 2019, https://arxiv.org/abs/1902.06705.
    """
    check = "gradients"
    if subject.model is None and not subject.remote:
        return finding(check, "suspicious", _NO_GRADIENT, {})
    subject.needs_gradient()
    plain = _useless(subject, losses.cross_entropy)
    own = _useless(subject, losses.log_odds)
    margins = -losses.margin(subject.y, subject.logits).numpy()
    numbers = {
        "cross_entropy_without_gradient_share": float(plain.mean()),
        "log_odds_without_gradient_share": float(own.mean()),
        "median_logit_margin": float(np.median(margins)),
        "margin_above_17_share": float((margins > _ROUNDS_TO_ONE).mean()),
        "largest_logit": float(np.abs(subject.logits).max()),
    }
    verdict = grade(int(own.sum()), len(own), *_VANISHED)
    if verdict != "ok":
        meaning = (
            f"The network itself gives no usable gradient for {percent(own.mean())} of the images "
            "that it classifies right: an attack that follows gradients can't move them, and "
            "counts them as robust. Something in the model rounds, clips or thresholds. Take "
            "gradients straight through it (kr.attacks.StraightThrough), and count what attacks "
            "without gradients break (kr.attacks.Square); kr.evaluate does both where it can."
        )
        return finding(check, verdict, meaning, numbers)
    verdict = grade(int(plain.sum()), len(plain), *_VANISHED)
    if verdict != "ok":
        meaning = (
            "The cross-entropy rounds to zero, and its gradient with it, for "
            f"{percent(plain.mean())} of the images that are classified right: the logits are so "
            f"far apart (median margin {np.median(margins):.0f}; float32 loses the label's "
            "probability from 17 on) that an attack on the plain cross-entropy stands still. The "
            "logits do have gradients. keras_robust climbs the log odds, which do not round; "
            "don't trust numbers from tools that climb the cross-entropy."
        )
        return finding(check, verdict, meaning, numbers)
    meaning = "Gradients reach the input and are neither zero nor infinite."
    return finding(check, "ok", meaning, numbers)


_NO_GRADIENT = (
    "No gradient reaches the input: the model rounds, casts to integers, or leaves TensorFlow on "
    "the way. Attacks that follow gradients can't be run on it, which says nothing about "
    "robustness. Take gradients straight through that operation (kr.attacks.StraightThrough), "
    "or attack the model without it and try the examples here, and run kr.attacks.Square; "
    "kr.evaluate does the first and the last where it can."
)


def _useless(subject, loss) -> np.ndarray:
    """`(right,)` bool, whose gradient of `loss` is all zeros or not finite."""

    def useless(x, y):
        _, gradient = value_and_gradient(subject.model, loss, x, y)
        axes = list(range(1, gradient.shape.rank))
        finite = tf.reduce_all(tf.math.is_finite(gradient), axes)
        return (~finite | tf.reduce_all(tf.equal(gradient, 0.0), axes),)

    return subject.per_batch(useless)[0]


def check_differences(subject: Subject) -> dict:
    """Whether the gradient predicts how the outputs change nearby.

    Log odds at `x + d` and `x - d` against the gradient's prediction, for `d` along the gradient
    and four random directions, of length eps, eps/10 and eps/100. At each length the share that
    the gradient explains is `1 - sum (change - predicted)^2 / sum change^2`; 1 for a linear
    model, and near it for any smooth one at a small length, while a straight-through gradient
    explains a staircase at a large one: an image's best length counts. Below 0.5 at all three,
    or with outputs that do not change at all, the gradient says nothing about the model.
    "warning" above 5% of the images classified right, "suspicious" above 20%.
    """
    subject.needs_gradient()
    change, predicted = subject.per_batch(lambda x, y: _changes(subject, x, y))
    still = np.all(change[:, -1] == 0, axis=-1)
    total = np.sum(np.square(change), axis=-1)
    missed = np.sum(np.square(change - predicted), axis=-1)
    explained = np.where(total > 0, 1 - missed / np.maximum(total, 1e-30), 0.0)
    best = explained.max(axis=-1)
    wrong = best < _EXPLAINED
    numbers = {
        "gradient_explains": {
            f"steps of {share:g} eps": float(np.median(explained[:, i]))
            for i, share in enumerate(_SCALES)
        },
        "not_explained_share": float(wrong.mean()),
        "outputs_constant_share": float(still.mean()),
    }
    verdict = grade(int(wrong.sum()), len(wrong), *_UNEXPLAINED)
    if verdict == "ok":
        meaning = "The outputs change as the gradient says they will: following it makes sense."
    else:
        what = (
            "the outputs do not change at all in small steps, a staircase"
            if still.sum() > wrong.sum() / 2
            else "the outputs move, but not as the gradient says"
        )
        meaning = (
            f"For {percent(wrong.mean())} of the images that are classified right, {what}. The "
            "gradient that attacks follow is not that of the model: rounding, thresholds, noise, "
            "or a hand-written gradient. Robust accuracy under gradient attacks is too high; "
            "rely on kr.attacks.Square, and on gradients through kr.attacks.StraightThrough."
        )
    return finding("finite differences", verdict, meaning, numbers)


def _changes(subject, x, y):
    """Real and predicted change of the log odds, `(batch, scales, directions)` each."""
    _, gradient = value_and_gradient(subject.model, losses.log_odds, x, y)
    axes = list(range(1, x.shape.rank))
    blind = tf.reduce_all(tf.equal(gradient, 0.0), axes, keepdims=True)
    seed = as_seed(subject.seed)

    def both(case):
        share, number = case
        # Where there is no gradient, direction 0 is random too.
        drawn = normal(tf.shape(x), fold(seed, number))
        way = tf.where(blind | (number > 0), drawn, gradient)
        near = Ball(subject.ball.norm, share * subject.ball.eps, subject.ball.bounds)
        up, down = (near.place(x, near.corner(sign * way, x)) for sign in (1.0, -1.0))
        change = _log_odds(subject, up, y) - _log_odds(subject, down, y)
        return change, tf.reduce_sum(gradient * (up - down), axes)

    cases = tf.repeat(_SCALES, _WAYS), tf.tile(tf.range(_WAYS), [len(_SCALES)])
    found = tf.map_fn(
        both, cases, fn_output_signature=(tf.float32, tf.float32), parallel_iterations=1
    )
    return [tf.reshape(tf.transpose(part), [-1, len(_SCALES), _WAYS]) for part in found]


def _log_odds(subject, x, y):
    return losses.log_odds(y, call_logits(subject.model, x))
