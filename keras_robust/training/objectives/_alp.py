"""Adversarial logit pairing: the same logits for an image and its adversarial twin."""

import dataclasses

import tensorflow as tf

from keras_robust import losses
from keras_robust.training.objectives._mixed import side_by_side
from keras_robust.training.objectives._objective import Objective, Outcome, check_weight


@dataclasses.dataclass(frozen=True)
class ALP(Objective):
    """Clean and adversarial compiled loss in halves, plus the distance between their logits.

    Kannan et al. 2018, https://arxiv.org/abs/1803.06373, eq. 2. Its robustness on ImageNet did
    not hold against more steps (Engstrom et al. 2018, https://arxiv.org/abs/1807.10272): judge
    it with a strong attack. The compiled metrics are those at the clean inputs.

    Attributes:
        weight: of the squared distance between the logits (lambda in the paper), >= 0.

    Raises:
        ValueError: negative `weight`.

    >>> ALP(weight=0.5)
    ALP(weight=0.5)
    """

    weight: float = 0.5

    def __post_init__(self):
        check_weight(self, "weight")

    def perturb(self, step, x, y):
        return step.attacked(x, y)

    def minimise(self, step, x, x_adv, y, sample_weight):
        logits, adv_logits = side_by_side(step.model, x, x_adv)
        clean = step.compiled_loss(y, logits, sample_weight)
        loss = 0.5 * (clean + step.compiled_loss(y, adv_logits, sample_weight))
        distance = step.mean(losses.logit_pairing(logits, adv_logits), sample_weight)
        return Outcome(loss + self.weight * tf.cast(distance, loss.dtype), logits, adv_logits)
