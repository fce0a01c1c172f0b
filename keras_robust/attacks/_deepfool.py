"""DeepFool: from boundary to boundary of the linearised model until the class changes."""

import dataclasses

import tensorflow as tf

from keras_robust.attacks._attack import (
    Attack,
    call_logits,
    check_counts,
    hard_labels,
    keep_within,
    rows_of,
    settle,
)
from keras_robust.attacks._boundary import into_bounds, nearest_boundary, shortest_step
from keras_robust.attacks._targeted import likely_wrong
from keras_robust.attacks._threat import size

# A step goes all the way once less than this share of the distance from `x` is left of it.
_NEAR = 0.05
# Then it also goes beyond the boundary by this share: on a curved one, steps that shrink with
# the way that is left can fall short for ever.
_PUSH = 1e-3


@dataclasses.dataclass(frozen=True)
class DeepFool(Attack):
    """The shortest way over the nearest boundary of the linearised model, again and again.

    Moosavi-Dezfooli et al. 2016, https://arxiv.org/abs/1511.04599. Two things differ from the
    paper, and both make perturbations smaller: a step goes to the part of the boundary that is
    inside the bounds instead of being clipped afterwards, and only half of the way, until
    little is left of it.

    Attributes:
        eps: None for the smallest perturbation that is found. With a radius, only examples
            inside it are returned.
        norm: "linf" or "l2".
        steps: most steps of a row; it rests once it fools the model.
        candidates: most likely classes that are considered, that of the row among them.
        overshoot: how far a whole step goes beyond the boundary, as a share of its length.
        relaxation: share of the way to the linearised boundary that a step goes, in (0, 1]; 1
            is the paper's. Shorter steps follow a curved boundary better.
        bounds: range of valid inputs.

    Raises:
        ValueError: a setting out of its range, or the norm "l1".

    >>> weights = tf.constant([[1.0, -1.0], [-2.0, 2.0]])
    >>> x = tf.constant([[0.8, 0.1]])
    >>> DeepFool(norm="linf")(lambda x: x @ weights, x, [0]).numpy().round(2)
    array([[0.6, 0.3]], dtype=float32)
    """

    eps: float | None = None
    norm: str = "l2"
    steps: int = 50
    candidates: int = 10
    overshoot: float = 0.02
    relaxation: float = 0.5
    bounds: tuple[float, float] = (0.0, 1.0)

    searches = True

    def __post_init__(self):
        settle(self, norms=("linf", "l2"), optional_eps=True)
        check_counts(self, "steps", "candidates")
        if self.candidates < 2:
            raise ValueError(f"`candidates` must be an int >= 2, got {self.candidates}.")
        if not 0 <= self.overshoot < 1:
            raise ValueError(f"`overshoot` must be in [0, 1), got overshoot={self.overshoot!r}.")
        if not 0 < self.relaxation <= 1:
            raise ValueError(f"`relaxation` must be in (0, 1], got relaxation={self.relaxation!r}.")

    @property
    def name(self):
        return f"DeepFool {self.norm}"

    def run(self, model, x, y, seed, eps):
        y = hard_labels(y)
        logits = call_logits(model, x)
        others = likely_wrong(logits, y, self.candidates - 1)

        def step(x_adv, standing):
            rows = tf.where(standing)[:, 0]
            start, point, own = (tf.gather(all_rows, rows) for all_rows in (x, x_adv, y))
            rise, normal = nearest_boundary(model, point, own, tf.gather(others, rows), self.norm)
            way = shortest_step(point, normal, rise, self.norm, self.bounds)
            left, gone = size(way, self.norm), size(point - start, self.norm)
            share = self.relaxation * (1.0 + self.overshoot)
            last = 1.0 + self.overshoot + _PUSH * tf.math.divide_no_nan(gone, left)
            share = tf.where(left <= _NEAR * gone, last, share)
            point = into_bounds(point + rows_of(share, x) * way, start, self.bounds)
            predicted = tf.argmax(call_logits(model, point), axis=1, output_type=tf.int32)
            return (
                tf.tensor_scatter_nd_update(x_adv, rows[:, None], point),
                tf.tensor_scatter_nd_update(standing, rows[:, None], predicted == own),
            )

        standing = tf.argmax(logits, axis=1, output_type=tf.int32) == y
        x_adv, standing = tf.while_loop(
            lambda _, standing: tf.reduce_any(standing) & (eps > 0),
            step,
            (x, standing),
            parallel_iterations=1,
            maximum_iterations=self.steps,
        )
        return keep_within(x, x_adv, ~standing, self.norm, eps)
