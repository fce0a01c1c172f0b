"""What a student loses against its teachers."""

import math
import numbers

import tensorflow as tf

from keras_robust._keras import keras
from keras_robust.losses._classification import _wide, cross_entropy

MEANS = ("arithmetic", "geometric")


def distillation(labels, logits, teacher_logits, temperature=4.0, alpha=0.9) -> tf.Tensor:
    """`alpha T^2 CE(softmax(v / T), softmax(z / T)) + (1 - alpha) CE(y, softmax(z))`.

    Hinton, Vinyals and Dean 2015, https://arxiv.org/abs/1503.02531, section 2. The gradient of the
    soft term shrinks as 1 / T^2, so it is multiplied by T^2: then `alpha` means the same at any
    temperature. The student is used at temperature 1.

    Args:
        labels: `(batch,)` int or `(batch, classes)`; None where alpha is 1.
        logits: `(batch, classes)`, z, the student's.
        teacher_logits: `(batch, classes)`, v.
        temperature: T > 0.
        alpha: share of the soft term, in [0, 1].

    Returns:
        `(batch,)`, in nats. Its least value in z at alpha 1 is T^2 times the entropy of the
        teacher's softened distribution.

    Raises:
        ValueError: a setting out of its range, or no labels for the hard term.

    >>> round(float(distillation([0], [[0.0, 0.0]], [[9.0, 0.0]], alpha=0.0)[0]), 4)
    0.6931
    """
    check_temperature(temperature, alpha)
    if labels is None and alpha < 1:
        raise ValueError(f"`labels` must be given for the hard term of alpha={alpha!r} < 1.")
    logits = _wide(logits)
    soft_targets = tf.nn.softmax(tf.cast(teacher_logits, logits.dtype) / temperature)
    soft = temperature**2 * cross_entropy(soft_targets, logits / temperature)
    if labels is None:
        return soft
    return alpha * soft + (1 - alpha) * cross_entropy(labels, logits)


def ensemble_logits(logits, temperature=1.0, mean="arithmetic", weights=None) -> tf.Tensor:
    """Logits whose softmax at `temperature` is the mean of the teachers' at it.

    Args:
        logits: list of `(batch, classes)`, one a teacher.
        temperature: T > 0.
        mean: "arithmetic" of the softened distributions, or "geometric", which is that of the
            logits.
        weights: one a teacher, >= 0 with a positive sum; None weighs them alike.

    Returns:
        `(batch, classes)` in at least float32.

    Raises:
        ValueError: no teacher, an unknown mean, or weights that do not fit.

    >>> two = [[[0.0, 0.0]], [[2.0, 0.0]]]
    >>> ensemble_logits(two, mean="geometric").numpy().tolist()
    [[1.0, 0.0]]
    """
    check_ensemble(len(logits), mean, weights)
    weights = [1.0] * len(logits) if weights is None else list(weights)
    shares = [weight / sum(weights) for weight in weights]
    logits = [_wide(each) for each in logits]
    if len(logits) == 1:
        return logits[0]
    if mean == "geometric":
        return tf.add_n([share * each for share, each in zip(shares, logits)])
    logs = [
        math.log(share) + tf.nn.log_softmax(each / temperature)
        for share, each in zip(shares, logits)
        if share > 0
    ]
    return temperature * tf.reduce_logsumexp(tf.stack(logs), axis=0)


@keras.saving.register_keras_serializable("keras_robust")
class Distillation(keras.losses.Loss):
    """`distillation` as a compiled loss, for training on a teacher's logits by plain `fit`.

    `y_true` is the teacher's logits `(batch, classes)` at alpha 1, else `(batch, 2, classes)`:
    the teacher's logits, and the labels one-hot.

    Args:
        temperature: T > 0.
        alpha: share of the soft term, in [0, 1].
        **kwargs: `name` and `reduction`, as for any Keras loss.

    >>> loss = kr.losses.Distillation(temperature=2.0, alpha=1.0)
    >>> round(float(loss(np.zeros((1, 2), "float32"), np.zeros((1, 2), "float32"))), 4)
    2.7726
    """

    def __init__(self, temperature=4.0, alpha=0.9, name="distillation", **kwargs):
        super().__init__(name=name, **kwargs)
        check_temperature(temperature, alpha)
        self.temperature, self.alpha = temperature, alpha

    def call(self, y_true, y_pred):
        y_true = tf.convert_to_tensor(y_true)
        if y_true.shape.rank == 2 and self.alpha == 1:
            return distillation(None, y_pred, y_true, self.temperature, self.alpha)
        if y_true.shape.rank != 3 or y_true.shape[1] != 2:
            raise ValueError(
                f"`y_true` must have shape (batch, 2, classes), the teacher's logits and the "
                f"labels one-hot, for alpha={self.alpha!r}, got {y_true.shape}. Use for instance "
                "np.stack([teacher_logits, one_hot], axis=1)."
            )
        teacher, labels = y_true[:, 0], y_true[:, 1]
        return distillation(labels, y_pred, teacher, self.temperature, self.alpha)

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature, "alpha": self.alpha}


def check_temperature(temperature, alpha) -> None:
    """Raises unless both are in their ranges."""
    if not (isinstance(temperature, numbers.Real) and 0 < temperature < float("inf")):
        raise ValueError(f"`temperature` must be a number > 0, got {temperature!r}.")
    if not (isinstance(alpha, numbers.Real) and 0 <= alpha <= 1):
        raise ValueError(f"`alpha` must be in [0, 1], got {alpha!r}.")


def check_ensemble(count, mean, weights) -> None:
    """Raises unless `count` teachers can be averaged so."""
    if count == 0:
        raise ValueError("`teachers` is empty. Give at least one.")
    if mean not in MEANS:
        raise ValueError(f"`mean` must be one of {MEANS}, got {mean!r}.")
    if weights is not None and (
        len(weights) != count or min(weights) < 0 or not 0 < sum(weights) < float("inf")
    ):
        raise ValueError(
            f"`weights` must be {count} numbers >= 0, one a teacher, not all 0, got {weights!r}."
        )
