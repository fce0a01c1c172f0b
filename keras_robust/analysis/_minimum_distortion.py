"""How far the nearest misclassified input is, for each input."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_robust._checks import check_images, check_labels, check_logit_model, check_same_length
from keras_robust.attacks import LBFGS, rms
from keras_robust.attacks._attack import call_logits, hard_labels

_ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}


@dataclasses.dataclass(frozen=True, eq=False)
class Distortions:
    """The smallest perturbations that an attack found, one an input.

    Attributes:
        attack: name of the attack.
        norm: its norm.
        x_adv: `(n, ...)` float32; inputs for which nothing was found, or that were
            misclassified to begin with, as they came.
        correct: `(n,)` bool, classified right without a perturbation.
        found: `(n,)` bool, misclassified at `x_adv`.
        distance: `(n,)` float64 in the attack's norm; 0 for inputs misclassified to begin
            with, infinite where nothing was found.
        rms: `(n,)` float64, the same as root mean square over the entries of an input,
            Szegedy's distortion.
    """

    attack: str
    norm: str
    x_adv: np.ndarray
    correct: np.ndarray
    found: np.ndarray
    distance: np.ndarray
    rms: np.ndarray

    @property
    def mean_rms(self) -> float:
        """Average distortion of what was classified right; infinite when one withstood.

        That is the distortion at which the attack brings the accuracy to 0%.
        """
        return _mean(self.rms[self.correct])

    @property
    def mean(self) -> float:
        """Average distance of what was classified right; infinite when one withstood."""
        return _mean(self.distance[self.correct])

    @property
    def median(self) -> float:
        """Median distance of what was classified right."""
        return float(np.median(self.distance[self.correct])) if self.correct.any() else 0.0

    def accuracy(self, eps) -> np.ndarray:
        """Robust accuracy at each radius of `eps`, in the attack's norm: an upper bound.

        >>> yes, far = np.array([True, True]), np.array([1.0, 3.0])
        >>> found = Distortions("LBFGS", "l2", np.ones((2, 1)), yes, yes, far, far)
        >>> found.accuracy([0.0, 2.0, 4.0]).tolist()
        [1.0, 0.5, 0.0]
        """
        radii = np.reshape(np.asarray(eps, np.float64), (-1, 1))
        return np.mean(self.correct & (self.distance > radii), axis=1)

    def __repr__(self) -> str:
        return (
            f"<Distortions by {self.attack}: {len(self.correct)} inputs, "
            f"{100 * self.correct.mean():.1f}% right, of these {100 * self._broken:.1f}% broken, "
            f"median {self.norm} {self.median:.4g}, mean RMS {self.mean_rms:.4g}>"
        )

    @property
    def _broken(self) -> float:
        return float(self.found[self.correct].mean()) if self.correct.any() else 1.0


def minimum_distortion(
    model, x, y, attack=None, *, targets=None, batch_size: int = 100, seed=0
) -> Distortions:
    """The smallest perturbation of every input that makes `model` miss its label.

    Szegedy et al. 2014, https://arxiv.org/abs/1312.6199, section 4, whose figure is `mean_rms`:
    the average distortion that brings the accuracy to 0%. An attack gives an upper bound on the
    true distance: compare several. Perturbations towards a class that is chosen beforehand, the
    paper's D(x, l), are about twice as large as those towards the nearest class.

    Args:
        model: Keras model or TensorFlow callable `(batch, ...) -> (batch, classes)`, logits.
        x: `(n, ...)` floating point inside the attack's bounds.
        y: `(n,)` int labels, or one-hot.
        attack: one that seeks the smallest perturbation, without eps: `LBFGS()` (default),
            `CarliniWagner()`, `FAB()`, `DeepFool()`. With `targets` a targeted one; default
            `LBFGS(targeted=True)`.
        targets: `(n,)` int, the class that each input is to reach; None for whichever is
            nearest. `random_targets(y, classes, seed)` draws some.
        batch_size: inputs attacked at a time.
        seed: int; batch `i` is attacked with `seed + i`.

    Returns:
        `Distortions`.

    Raises:
        TypeError, ValueError: wrong inputs, or an attack with an eps.

    >>> weights = tf.constant([[1.0, -1.0], [0.0, 0.0]])
    >>> x = np.array([[0.9, 0.5]], "float32")
    >>> found = minimum_distortion(lambda x: (x - 0.5) @ weights, x, [0], kr.attacks.DeepFool())
    >>> round(found.mean, 1)
    0.4
    """
    attack = LBFGS(targeted=targets is not None) if attack is None else attack
    check_search(attack)
    check_logit_model(model)
    x = check_images(x, attack.bounds)
    y = check_labels(y)
    check_same_length(x, y)
    y = hard_labels(y).numpy()
    check_untargeted(attack, targets)
    goals = y if targets is None else _check_targets(targets, y, attack)
    x = x.numpy()
    batch_size = min(batch_size, len(x))
    found = []
    for index, start in enumerate(range(0, len(x), batch_size)):
        rows = np.arange(start, start + batch_size) % len(x)  # a constant shape: traced once
        count = min(batch_size, len(x) - start)
        found.append(attack(model, x[rows], goals[rows], seed=seed + index).numpy()[:count])
    x_adv = np.concatenate(found)
    correct = predict(model, x, batch_size) == y
    broken = predict(model, x_adv, batch_size) != y
    x_adv = np.where(_rows(correct, x), x_adv, x)
    delta = (x_adv.astype(np.float64) - x).reshape(len(x), -1)
    return Distortions(
        attack=attack.name,
        norm=attack.norm,
        x_adv=x_adv,
        correct=correct,
        found=broken,
        distance=np.where(broken, np.linalg.norm(delta, _ORDERS[attack.norm], axis=1), np.inf),
        rms=np.where(broken, rms(x, x_adv), np.inf),
    )


def random_targets(y, classes: int, seed: int = 0) -> np.ndarray:
    """A wrong class for each label, drawn uniformly.

    Args:
        y: `(n,)` int labels.
        classes: number of classes.
        seed: int.

    >>> random_targets([0, 1], classes=2).tolist()
    [1, 0]
    """
    steps = np.random.default_rng(seed).integers(1, classes, size=len(y))
    return (np.asarray(y, np.int64) + steps) % classes


def _check_targets(targets, y, attack) -> np.ndarray:
    targets = np.asarray(targets)
    if targets.shape != y.shape or not np.issubdtype(targets.dtype, np.integer):
        raise ValueError(
            f"`targets` must be a class number for each of the {len(y)} inputs, got shape "
            f"{targets.shape} and dtype {targets.dtype}."
        )
    if np.any(targets == y):
        raise ValueError(
            f"`targets` must differ from the labels, but {int(np.sum(targets == y))} are the same. "
            "kr.analysis.random_targets(y, classes) draws wrong classes."
        )
    if not attack.targeted:
        raise ValueError(
            f"`targets` needs a targeted attack, such as kr.attacks.LBFGS(targeted=True), got "
            f"{attack!r}."
        )
    return targets


def check_search(attack) -> None:
    """Raises unless `attack` seeks the smallest perturbation, whatever its size."""
    if not getattr(attack, "searches", False):
        raise TypeError(
            "`attack` must seek the smallest perturbation, such as kr.attacks.LBFGS() or "
            f"kr.attacks.DeepFool(), got {attack!r}."
        )
    if attack.eps is not None:
        raise ValueError(
            f"`attack` stops at eps={attack.eps!r}, but the smallest perturbation may be larger. "
            "Leave eps=None."
        )


def check_untargeted(attack, targets) -> None:
    """Raises when a targeted `attack` is not told what to reach."""
    if attack.targeted and targets is None:
        raise ValueError(
            f"`attack` is targeted, {attack!r}, so it needs `targets`, a class for each input."
        )


def predict(model, x, batch_size: int = 100) -> np.ndarray:
    """Predicted labels, `(n,)`."""
    parts = [
        np.argmax(call_logits(model, tf.constant(x[start : start + batch_size])), axis=-1)
        for start in range(0, len(x), batch_size)
    ]
    return np.concatenate(parts)


def _rows(mask, like):
    return np.reshape(mask, (-1, *[1] * (like.ndim - 1)))


def _mean(values) -> float:
    return float(np.mean(values)) if len(values) else 0.0
