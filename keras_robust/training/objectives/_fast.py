"""Fast adversarial training: one step from a random start, with gradient alignment."""

import dataclasses

import tensorflow as tf

from keras_robust import losses
from keras_robust._checks import check_labels
from keras_robust._seed import fold
from keras_robust.attacks._attack import call_logits, value_and_gradient
from keras_robust.training.objectives._objective import (
    Objective,
    Outcome,
    check_alpha,
    check_weight,
)


@dataclasses.dataclass(frozen=True)
class Fast(Objective):
    """The compiled loss at examples of one gradient step.

    Wong et al. 2020, https://arxiv.org/abs/2001.03994, algorithm 3. Of the trainer's attack the
    ball and the loss count, its steps only in validation. Training can collapse: within an
    epoch the network learns to fool the single step, and PGD finds it defenceless.
    `kr.training.OverfittingGuard` watches for that, and gradient alignment (Andriushchenko and
    Flammarion 2020, https://arxiv.org/abs/2007.02617, eq. 5) prevents it. That is differentiated
    twice: on CPUs a step then takes as long as one with PGD-7. The compiled metrics are those at
    the adversarial examples.

    Attributes:
        alpha: length of the step in units of eps, > 0. With a random start the paper uses 1.25,
            and 2 collapses; without, 1 is training on FGSM.
        random_start: start at a random point of the ball instead of at the input. As in the
            paper it may lie outside the bounds of the inputs, which the example itself does not.
        grad_align: weight of one minus the cosine between the input gradients at the input and
            at a random point of the ball, >= 0; 0 leaves it out. The passes for it move no
            BatchNorm statistics.

    Raises:
        ValueError: a setting out of its range.

    >>> Fast()
    Fast(alpha=1.25, random_start=True, grad_align=0.0)
    """

    alpha: float = 1.25
    random_start: bool = True
    grad_align: float = 0.0

    def __post_init__(self):
        check_alpha(self)
        check_weight(self, "grad_align")

    def perturb(self, step, x, y):
        # As in the paper, start and step know nothing of the bounds. Cut by them, on images of
        # black and white nearly every example would be a corner, as without random start.
        ball = step.unbounded_ball
        delta = ball.random(x, fold(step.seed, 0)) if self.random_start else tf.zeros_like(x)
        climbed = step.attack.goal(step.model, y)
        _, gradient = value_and_gradient(climbed, x + delta)
        moved = ball.ascend(delta, gradient, x, self.alpha * step.eps)
        return tf.stop_gradient(step.ball.place(x, step.ball.project(moved, x)))

    def minimise(self, step, x, x_adv, y, sample_weight):
        logits = step.model(x_adv, training=True)
        loss = step.compiled_loss(y, logits, sample_weight)
        if self.grad_align:
            bend = step.mean(self._misalignment(step, x, check_labels(y)), sample_weight)
            loss += self.grad_align * tf.cast(bend, loss.dtype)
        return Outcome(loss, logits, logits)

    def _misalignment(self, step, x, y):
        start = x + step.ball.random(x, fold(step.seed, 1))
        here, there = (_input_gradient(step.model, point, y) for point in (x, start))
        return losses.misalignment(here, there)


def _input_gradient(model, x, y):
    """That of the log odds: the cross-entropy's direction, without its rounding to zero."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        values = losses.log_odds(y, call_logits(model, x))
    return tape.gradient(values, x)
