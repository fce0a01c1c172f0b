"""The fast gradient sign method, and its like in the other norms."""

import collections.abc
import dataclasses

from keras_robust.attacks._attack import (
    Ascent,
    check_loss,
    settle,
    value_and_gradient,
)
from keras_robust.attacks._threat import Ball


@dataclasses.dataclass(frozen=True)
class FGSM(Ascent):
    """One gradient step: the linearised loss maximised exactly over ball and bounds.

    Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572, for linf. For l2 and l1 the same
    principle, the maximiser of the inner product with the gradient, with the bounds inside
    the maximisation instead of a clip after it.

    Attributes:
        eps: radius in the units of the inputs.
        norm: "linf", "l2" or "l1".
        loss: "ce", "margin", "dlr", or a function `(labels, logits) -> (batch,)` to climb.
        targeted: `y` are the labels to reach instead of those to leave.
        bounds: range of valid inputs.

    Raises:
        ValueError: negative or infinite `eps`, unknown `norm` or `loss`, `bounds` reversed.

    >>> weights = tf.constant([[1.0, -1.0], [-2.0, 2.0]])
    >>> x = tf.constant([[0.5, 0.5]])
    >>> FGSM(eps=0.25)(lambda x: x @ weights, x, [0]).numpy().tolist()
    [[0.25, 0.75]]
    """

    eps: float
    norm: str = "linf"
    loss: str | collections.abc.Callable = "ce"
    targeted: bool = False
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self):
        settle(self)
        check_loss(self.loss, self.targeted)

    @property
    def name(self):
        return "FGSM" + ("" if self.norm == "linf" else f" {self.norm}")

    def for_training(self):
        return self

    def perturb(self, goal, x, seed, eps):
        ball = Ball(self.norm, eps, self.bounds)
        _, gradient = value_and_gradient(goal, x)
        return ball.place(x, ball.corner(gradient, x))
