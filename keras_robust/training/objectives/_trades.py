"""TRADES: accuracy on clean inputs, and agreement of the prediction around them."""

import dataclasses

import tensorflow as tf

from keras_robust import losses
from keras_robust.attacks._attack import call_logits
from keras_robust.training.objectives._objective import (
    Objective,
    Outcome,
    check_weight,
    divergence_from,
)


@dataclasses.dataclass(frozen=True)
class TRADES(Objective):
    """The compiled loss on clean inputs plus `beta` times the divergence to adversarial ones.

    Zhang et al. 2019, https://arxiv.org/abs/1901.08573, eq. 5. The attack climbs the
    divergence too, whatever its own loss. The start must be random: at the clean input itself
    the divergence has no gradient. The compiled metrics are those at the clean inputs.

    Attributes:
        beta: weight of the divergence, >= 0; the paper uses 1 and 6.

    Raises:
        ValueError: negative `beta`; in the trainer, an attack without random start.

    >>> TRADES(beta=6.0)
    TRADES(beta=6.0)
    """

    beta: float = 6.0

    def __post_init__(self):
        check_weight(self, "beta")

    def check_attack(self, attack):
        if not getattr(attack, "random_start", False):
            raise ValueError(
                f"TRADES needs an attack with random start, got {attack!r}: at the clean input the "
                "divergence that it climbs has no gradient. Use PGD(..., random_start=True)."
            )

    def perturb(self, step, x, y):
        self.check_attack(step.attack)
        clean = tf.stop_gradient(call_logits(step.model, x))
        goal = divergence_from(clean, step.model)
        return step.attack.perturb(goal, x, step.seed, step.eps)

    def minimise(self, step, x, x_adv, y, sample_weight):
        logits = step.model(x, training=True)
        adv_logits = step.model(x_adv, training=True)
        divergence = losses.kl_divergence(logits, adv_logits)
        loss = step.compiled_loss(y, logits, sample_weight)
        loss += self.beta * tf.cast(step.mean(divergence, sample_weight), loss.dtype)
        return Outcome(loss, logits, adv_logits)
