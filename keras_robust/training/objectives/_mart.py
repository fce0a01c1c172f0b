"""MART: more weight on examples that the network gets wrong even when clean."""

import dataclasses

import tensorflow as tf

from keras_robust import losses
from keras_robust.training.objectives._objective import Objective, Outcome, check_weight


@dataclasses.dataclass(frozen=True)
class MART(Objective):
    """The compiled loss at adversarial examples, boosted, plus a divergence by misclassification.

    Wang et al. 2020, https://openreview.net/forum?id=rklOg6EFwS, eq. 11; `kr.losses.mart` when
    the compiled loss is the cross-entropy. The attack climbs its own loss, in the paper the
    cross-entropy. The compiled metrics are those at the clean inputs.

    Attributes:
        beta: weight of the divergence (lambda in the paper), >= 0.

    Raises:
        ValueError: negative `beta`.

    >>> MART(beta=5.0)
    MART(beta=5.0)
    """

    beta: float = 5.0

    def __post_init__(self):
        check_weight(self, "beta")

    def perturb(self, step, x, y):
        return step.attacked(x, y)

    def minimise(self, step, x, x_adv, y, sample_weight):
        logits = step.model(x, training=True)
        adv_logits = step.model(x_adv, training=True)
        wrong = losses.misclassification(y, logits)
        extra = losses.runner_up(y, adv_logits)
        extra += self.beta * wrong * losses.kl_divergence(logits, adv_logits)
        loss = step.compiled_loss(y, adv_logits, sample_weight)
        loss += tf.cast(step.mean(extra, sample_weight), loss.dtype)
        return Outcome(loss, logits, adv_logits)
