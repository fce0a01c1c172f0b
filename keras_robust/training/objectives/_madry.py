"""Madry's objective: the compiled loss at the worst example found."""

import dataclasses

from keras_robust.training.objectives._objective import Objective, Outcome


@dataclasses.dataclass(frozen=True)
class Madry(Objective):
    """The compiled loss at adversarial examples only.

    Madry et al. 2018, https://arxiv.org/abs/1706.06083, eq. 2.1. The compiled metrics are
    those at the adversarial examples.

    >>> Madry()
    Madry()
    """

    def perturb(self, step, x, y):
        return step.attacked(x, y)

    def minimise(self, step, x, x_adv, y, sample_weight):
        logits = step.model(x_adv, training=True)
        return Outcome(step.compiled_loss(y, logits, sample_weight), logits, logits)
