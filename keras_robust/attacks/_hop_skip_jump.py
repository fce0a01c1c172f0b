"""HopSkipJump: the smallest perturbation from decisions alone."""

import dataclasses

import tensorflow as tf

from keras_robust.attacks._attack import (
    Attack,
    call_logits,
    check_counts,
    hard_labels,
    keep_within,
    settle,
)
from keras_robust.attacks._best import choose
from keras_robust.attacks._hop_walk import Point, Walk, distance
from keras_robust.attacks._threat import check_finite


@dataclasses.dataclass(frozen=True)
class HopSkipJump(Attack):
    """Walks along the decision boundary towards the input, Chen et al. 2020.

    https://arxiv.org/abs/1904.02144. Only the predicted class is read: it attacks files and
    endpoints that give a label and no score, as one-hot rows or as probabilities. From a
    misclassified start, each step estimates the boundary's normal from which of many probes are
    misclassified, moves along it, and halves the way back to the boundary. An image for which no
    start is found stays as it is.

    Attributes:
        eps: largest perturbation that counts, in the units of the inputs, or None; an image
            with one that small is not asked about any more.
        norm: "l2" or "linf".
        steps: steps along the boundary.
        queries: rows asked for each image besides itself, at most; whichever ends first.
        probes: probes of the first step; the t-th has `sqrt(t)` times as many.
        bounds: range of valid inputs.

    Raises:
        ValueError: a setting out of its range.

    >>> weights = tf.constant([[1.0, -1.0], [-1.0, 1.0]])
    >>> x = tf.constant([[0.75, 0.25]])
    >>> x_adv = HopSkipJump(queries=500)(lambda x: x @ weights, x, [0])
    >>> np.allclose(x_adv, [[0.5, 0.5]], atol=0.01)
    True
    """

    eps: float | None = None
    norm: str = "l2"
    steps: int = 50
    queries: int = 10000
    probes: int = 100
    bounds: tuple[float, float] = (0.0, 1.0)

    needs_gradient = False
    searches = True
    _needs_scores = False

    def __post_init__(self):
        settle(self, norms=("linf", "l2"), optional_eps=True)
        check_counts(self, "steps", "queries", "probes")
        check_finite(self)

    @property
    def name(self):
        return f"HopSkipJump-{self.queries}" + ("" if self.norm == "l2" else f" {self.norm}")

    def run(self, model, x, y, seed, eps):
        labels = hard_labels(y)

        def missed(x_adv, labels):
            return tf.argmax(call_logits(model, x_adv), axis=-1, output_type=tf.int32) != labels

        walk = Walk(self, missed, seed, x.shape)
        asked, start, found = walk.start(x, labels, ~missed(x, labels) & (eps > 0))
        point = Point(start, distance(x, start, self.norm), tf.ones_like(labels, tf.float32))

        # Not on the edge of the ball: `keep_within` would round some of those out of it.
        near = tf.where(tf.math.is_inf(eps), 0.0, eps * (1.0 - 1e-6))

        def far(best):
            return found & (best.distance > near)

        def step(count, asked, point, best):
            rows = tf.where(far(best))
            part = tf.nest.map_structure(lambda each: tf.gather_nd(each, rows), point)
            own = tf.gather_nd(x, rows), tf.gather_nd(labels, rows)
            asked, part = walk.step(*own, part, count, asked)
            point = tf.nest.map_structure(
                lambda old, new: tf.tensor_scatter_nd_update(old, rows, new), point, part
            )
            best = choose(point.distance < best.distance, point, best)
            return count + 1, asked, point, best

        _, _, _, best = tf.while_loop(
            lambda count, asked, point, best: tf.reduce_any(far(best)) & walk.can_step(asked),
            step,
            (1, asked, point, point),
            parallel_iterations=1,
            maximum_iterations=self.steps,
        )
        return tf.stop_gradient(keep_within(x, best.x_adv, found, self.norm, eps))
