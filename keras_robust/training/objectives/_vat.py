"""Virtual adversarial training: a smooth prediction around inputs, labelled or not."""

import dataclasses

import tensorflow as tf

from keras_robust import losses
from keras_robust._seed import normal
from keras_robust.attacks._attack import Value, call_logits, check_counts, value_and_gradient
from keras_robust.training.objectives._objective import Objective, Outcome, check_weight

# Rounding to float16 would lose small gradients, and only their direction counts.
_SCALE = 128.0


@dataclasses.dataclass(frozen=True)
class VAT(Objective):
    """The compiled loss on clean inputs plus the local distributional smoothness.

    Miyato et al. 2018, https://arxiv.org/abs/1704.03976, eq. 5 to 12. The virtual adversarial
    direction, along which the prediction changes most, needs no label: it is found by power
    iteration, and the example is where that direction leaves the attack's ball. Of the
    trainer's attack only `eps`, `norm` and `bounds` count; the paper's norm is l2.

    An example of sample weight 0 is unlabelled: the compiled loss leaves it out, whatever
    integer in the range stands for its label, and its divergence counts as any other. Keras
    divides by the whole batch, so scale the weights of the others to a mean of 1:
    `labelled / labelled.mean()`. The compiled metrics are those at the clean inputs.

    Attributes:
        weight: of the divergence (alpha in the paper), >= 0.
        iterations: of the power method, >= 1.
        xi: length of the step that its finite differences take, > 0, in the units of the
            inputs.

    Raises:
        ValueError: a setting out of its range.

    >>> VAT()
    VAT(weight=1.0, iterations=1, xi=0.1)
    """

    weight: float = 1.0
    iterations: int = 1
    xi: float = 0.1
    takes_differences = True

    def __post_init__(self):
        check_weight(self, "weight")
        check_counts(self, "iterations")
        check_weight(self, "xi")
        if self.xi == 0:
            raise ValueError(f"`xi` must be > 0 in the units of the inputs, got xi={self.xi!r}.")

    def perturb(self, step, x, y):
        clean = tf.stop_gradient(call_logits(step.model, x))
        own = tf.argmax(clean, axis=-1)

        def divergence(x_adv) -> Value:
            logits = call_logits(step.model, x_adv)
            missed = tf.argmax(logits, axis=-1) != own
            return Value(_SCALE * losses.kl_divergence(clean, logits), missed)

        direction = losses.unit_rows(normal(tf.shape(x), step.seed))
        direction = tf.ensure_shape(direction, x.shape)
        for _ in range(self.iterations):
            _, gradient = value_and_gradient(divergence, x + self.xi * direction)
            direction = losses.unit_rows(gradient)
        return step.ball.place(x, step.ball.corner(direction, x))

    def minimise(self, step, x, x_adv, y, sample_weight):
        logits = step.model(x, training=True)
        adv_logits = step.model(x_adv, training=True)
        divergence = losses.kl_divergence(tf.stop_gradient(logits), adv_logits)
        loss = step.compiled_loss(y, logits, sample_weight)
        loss += self.weight * tf.cast(step.mean(divergence), loss.dtype)
        return Outcome(loss, logits, adv_logits)
