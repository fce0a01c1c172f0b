"""A loss that is flat around the inputs, by double backpropagation."""

import dataclasses

import tensorflow as tf

from keras_robust import losses
from keras_robust.training.objectives._objective import Objective, Outcome, check_weight


@dataclasses.dataclass(frozen=True)
class GradientPenalty(Objective):
    """The compiled loss on clean inputs plus the size of the cross-entropy's input gradient.

    Drucker and LeCun 1992; Ross and Doshi-Velez 2018, https://arxiv.org/abs/1711.09404. It
    attacks nothing: one pass forward, and one back that is differentiated again. So training
    logs as "robust_accuracy" the clean one. The compiled metrics are those at the clean inputs.

    Attributes:
        weight: of the penalty, >= 0. With the "l1" norm, `weight=eps` is the rise of the
            linearised loss in the linf ball of that radius.
        norm: "l2", squared, or "l1".

    Raises:
        ValueError: negative `weight`, unknown `norm`.

    >>> GradientPenalty(weight=0.1, norm="l1")
    GradientPenalty(weight=0.1, norm='l1')
    """

    weight: float = 1.0
    norm: str = "l2"

    def __post_init__(self):
        check_weight(self, "weight")
        losses.gradient_penalty(tf.zeros([1, 1]), self.norm)

    def perturb(self, step, x, y):
        return x

    def minimise(self, step, x, x_adv, y, sample_weight):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            logits = step.model(x, training=True)
            values = losses.cross_entropy(y, logits)
        gradient = tf.cast(tape.gradient(values, x), values.dtype)
        penalty = losses.gradient_penalty(gradient, self.norm)
        loss = step.compiled_loss(y, logits, sample_weight)
        loss += self.weight * tf.cast(step.mean(penalty, sample_weight), loss.dtype)
        return Outcome(loss, logits, logits)
