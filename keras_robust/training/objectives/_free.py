"""Free adversarial training: one backward pass serves weights and perturbation."""

import dataclasses

import tensorflow as tf

from keras_robust.attacks._attack import check_counts
from keras_robust.training.objectives._objective import Carrying, Outcome, check_alpha


@dataclasses.dataclass(frozen=True)
class Free(Carrying):
    """The compiled loss at examples that cost no pass of their own, several times a batch.

    Shafahi et al. 2019, https://arxiv.org/abs/1904.12843, algorithm 1. Each batch is replayed
    `replays` times; the gradient that moves the weights also moves the perturbation, which is
    carried over to the next batch. Optimizer steps, schedules of the learning rate and
    `eps_ramp` count replays, so train for the epochs of plain training divided by `replays`.
    Of the trainer's attack `eps`, `norm` and `bounds` count. Loss and metrics are over all
    replays; the compiled metrics are those at the adversarial examples.

    `fit` must know the size of a batch: give it arrays or a dataset.

    Attributes:
        replays: steps on each batch (m in the paper), >= 1.
        alpha: length of the perturbation's step in units of eps, > 0; the paper uses 1.

    Raises:
        ValueError: a setting out of its range.

    >>> Free(replays=8)
    Free(replays=8, alpha=1.0)
    """

    replays: int = 4
    alpha: float = 1.0

    def __post_init__(self):
        check_counts(self, "replays")
        check_alpha(self)

    def perturb(self, step, x, y):
        return step.ball.place(x, step.ball.project(step.carried, x))

    def minimise(self, step, x, x_adv, y, sample_weight):
        logits = step.model(x_adv, training=True)
        return Outcome(step.compiled_loss(y, logits, sample_weight), logits, logits)

    def carry(self, step, x, gradient):
        gradient = tf.where(tf.math.is_finite(gradient), gradient, 0.0)
        # What is carried on meets other images, so the bounds of these must not cut it.
        return step.unbounded_ball.ascend(step.carried, gradient, x, self.alpha * step.eps)
