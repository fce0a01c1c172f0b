"""One-step and iterated sign attacks of the literature, under their own names."""

import collections.abc
import dataclasses

import tensorflow as tf

from keras_robust._seed import uniform
from keras_robust.attacks._attack import Ascent, check_loss, settle, value_and_gradient
from keras_robust.attacks._pgd import PGD
from keras_robust.attacks._threat import Ball


def BIM(eps, steps=10, *, step_size=None, **settings) -> PGD:
    """The basic iterative method, or I-FGSM: PGD that starts at `x`.

    Kurakin et al. 2017, https://arxiv.org/abs/1607.02533.

    Args:
        eps: radius in the units of the inputs.
        steps: gradient steps.
        step_size: length of a step; None is `eps / steps`, as Dong et al. 2018 compare with.
        **settings: of `PGD`, such as `norm`, `loss`, `targeted` and `bounds`.

    Returns:
        The attack, "BIM-10" in tables.

    >>> BIM(eps=0.1).name
    'BIM-10'
    """
    return MIFGSM(eps, steps, decay=0.0, step_size=step_size, **settings)


def MIFGSM(eps, steps=10, *, decay=1.0, step_size=None, **settings) -> PGD:
    """The momentum iterative method: BIM along an accumulated gradient, for transfer.

    Dong et al. 2018, https://arxiv.org/abs/1710.06081, algorithm 1.

    Args:
        eps: radius in the units of the inputs.
        steps: gradient steps.
        decay: of the accumulated gradient, in [0, 1]; the paper's mu.
        step_size: length of a step; None is `eps / steps`, as in the paper.
        **settings: of `PGD`, such as `norm`, `loss`, `targeted` and `bounds`.

    Returns:
        The attack, "MI-FGSM-10" in tables.

    >>> MIFGSM(eps=0.1, norm="l2").name
    'MI-FGSM-10 l2'
    """
    attack = PGD(eps, steps=steps, momentum=decay, random_start=False, **settings)
    step_size = attack.eps / attack.steps if step_size is None else step_size
    return dataclasses.replace(attack, step_size=step_size)


@dataclasses.dataclass(frozen=True)
class RFGSM(Ascent):
    """R+FGSM: a random step of signs, then one gradient step with what is left of eps.

    Tramer et al. 2018, https://arxiv.org/abs/1705.07204, section 4.2. The random step leaves the
    neighbourhood of `x`, where a model trained with single steps hides its gradient.

    Attributes:
        eps: radius in the units of the inputs.
        alpha: length of the random step, in [0, eps]; None is `eps / 2`, as in the paper.
        norm: "linf".
        loss: "ce", "margin", "dlr", or a function `(labels, logits) -> (batch,)` to climb.
        targeted: `y` are the labels to reach instead of those to leave.
        bounds: range of valid inputs.

    Raises:
        ValueError: a setting out of its range.

    >>> weights = tf.constant([[1.0, -1.0], [-2.0, 2.0]])
    >>> x = tf.constant([[0.5, 0.5]])
    >>> RFGSM(eps=0.25, alpha=0.0)(lambda x: x @ weights, x, [0]).numpy().tolist()
    [[0.25, 0.75]]
    """

    eps: float
    alpha: float | None = None
    norm: str = "linf"
    loss: str | collections.abc.Callable = "ce"
    targeted: bool = False
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self):
        settle(self, norms=("linf",))
        check_loss(self.loss, self.targeted)
        if self.alpha is None:
            return
        if not 0 <= self.alpha <= self.eps:
            raise ValueError(
                f"`alpha` must be in [0, eps], got alpha={self.alpha!r} with eps={self.eps:g}."
            )
        object.__setattr__(self, "alpha", float(self.alpha))

    @property
    def name(self):
        return "R+FGSM"

    def for_eps_one(self):
        if self.alpha is None or self.eps == 0:
            return dataclasses.replace(self, eps=1.0, alpha=None)
        return dataclasses.replace(self, eps=1.0, alpha=self.alpha / self.eps)

    def for_training(self):
        return self

    def perturb(self, goal, x, seed, eps):
        share = self.for_eps_one().alpha
        alpha = eps * (0.5 if share is None else share)
        ball = Ball("linf", eps, self.bounds)
        delta = ball.project(alpha * tf.sign(uniform(tf.shape(x), seed, -1.0, 1.0)), x)
        _, gradient = value_and_gradient(goal, x + delta)
        return ball.place(x, ball.ascend(delta, gradient, x, eps - alpha))
