"""A schedule of the radius over the first steps of training."""

import dataclasses
import numbers

import tensorflow as tf

from keras_robust.attacks._attack import check_counts


@dataclasses.dataclass(frozen=True)
class Ramp:
    """Scales eps from `start` to 1 over the first `steps` training steps.

    Starting below the full radius keeps a network that has learned nothing yet from settling
    on a constant output. It depends on the optimizer's step alone, so a resumed run follows it.

    Attributes:
        steps: training steps (batches) until the full radius, >= 1.
        start: share of eps at the first step, in [0, 1].

    Raises:
        ValueError: a setting out of its range.

    >>> ramp = Ramp(steps=4)
    >>> [round(float(ramp(step)), 2) for step in (0, 1, 4, 100)]
    [0.0, 0.25, 1.0, 1.0]
    """

    steps: int
    start: float = 0.0

    def __post_init__(self):
        check_counts(self, "steps")
        if not isinstance(self.start, numbers.Real) or not 0 <= self.start <= 1:
            raise ValueError(f"`start` must be a number in [0, 1], got start={self.start!r}.")

    def __call__(self, step) -> tf.Tensor:
        """The share of eps at training step `step`, a float32 scalar."""
        share = tf.cast(step, tf.float32) / self.steps
        return self.start + (1.0 - self.start) * tf.minimum(share, 1.0)
