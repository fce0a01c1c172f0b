"""Clean and adversarial examples side by side: the proactive defence."""

import dataclasses
import numbers

import tensorflow as tf

from keras_robust.attacks._attack import call_logits
from keras_robust.training.objectives._objective import Objective, Outcome


@dataclasses.dataclass(frozen=True)
class Mixed(Objective):
    """`1 - ratio` of the compiled loss at the clean inputs, `ratio` at adversarial ones.

    Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572, section 6, and Kurakin et al. 2017,
    https://arxiv.org/abs/1611.01236. Each step finds the network's own adversarial examples and
    adds them with the right label, a proactive defence; what it closes is the attack trained
    on, so judge it by another one too. Clean and adversarial inputs go through the network as
    one batch, as Kurakin et al. advise for BatchNorm. The compiled metrics are those at the
    clean inputs; at ratio 1 it is `Madry`, with its metrics.

    Attributes:
        ratio: share of the adversarial loss, in [0, 1].

    Raises:
        ValueError: `ratio` out of its range.

    >>> Mixed(ratio=0.5)
    Mixed(ratio=0.5)
    """

    ratio: float = 0.5

    def __post_init__(self):
        if not (isinstance(self.ratio, numbers.Real) and 0 <= self.ratio <= 1):
            raise ValueError(f"`ratio` must be in [0, 1], got ratio={self.ratio!r}.")

    def perturb(self, step, x, y):
        return step.attacked(x, y)

    def minimise(self, step, x, x_adv, y, sample_weight):
        if self.ratio == 1:
            adv_logits = step.model(x_adv, training=True)
            return Outcome(step.compiled_loss(y, adv_logits, sample_weight), adv_logits, adv_logits)
        if self.ratio == 0:
            # Plain training, whose BatchNorm must not see the examples that are only counted.
            logits = step.model(x, training=True)
            # At once: what layers add to the loss is forgotten with the next call.
            loss = step.compiled_loss(y, logits, sample_weight)
            return Outcome(loss, logits, call_logits(step.model, x_adv))
        logits, adv_logits = side_by_side(step.model, x, x_adv)
        clean = step.compiled_loss(y, logits, sample_weight)
        adversarial = step.compiled_loss(y, adv_logits, sample_weight)
        loss = (1 - self.ratio) * clean + self.ratio * adversarial
        return Outcome(loss, logits, adv_logits)


def side_by_side(model, x, x_adv):
    """Logits of both, in training mode, from one pass over one batch."""
    logits = model(tf.concat([x, x_adv], axis=0), training=True)
    count = tf.shape(x)[0]
    return logits[:count], logits[count:]
