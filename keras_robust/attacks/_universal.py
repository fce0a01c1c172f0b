"""One perturbation for all images."""

import dataclasses

import tensorflow as tf

from keras_robust._checks import (
    check_images,
    check_labels,
    check_logit_model,
    check_logits,
    check_same_length,
)
from keras_robust._seed import as_seed, fold, uniform
from keras_robust.attacks._attack import (
    Attack,
    call_logits,
    check_counts,
    hard_labels,
    make_goal,
    rows_of,
    settle,
    value_and_gradient,
)
from keras_robust.attacks._boundary import into_bounds
from keras_robust.attacks._deepfool import DeepFool
from keras_robust.attacks._threat import Ball, float32_below
from keras_robust.losses import margin

METHODS = ("gradient", "deepfool")
_ANYWHERE = (float("-inf"), float("inf"))
# First step as a share of the radius, falling to nothing, and how sharply an image counts as
# fooled: the best of a few on two networks for MNIST.
_STEP = 0.3
_SLOPE = 3.0
# Steps of DeepFool for an image, as in the paper.
_CROSSINGS = 10


@dataclasses.dataclass(frozen=True)
class UniversalPerturbation(Attack):
    """One perturbation that fools the model on as many images of a set as it can.

    Called like every attack, it is made for the given `x` and added to each of its images.
    `find` makes it for one set, such as training images, and `apply` adds it to others.

    Attributes:
        eps: radius in the units of the inputs.
        norm: "linf" or "l2".
        method: "gradient" climbs the mean of a bounded loss, so that no image counts for much
            more than another, batch after batch: Shafahi et al. 2020,
            https://arxiv.org/abs/1811.11304.
            "deepfool" adds up the shortest ways over the boundary of one image after the
            other: Moosavi-Dezfooli et al. 2017, https://arxiv.org/abs/1610.08401. Many times
            slower, and mostly weaker.
        epochs: passes over the images.
        batch_size: images of a step of "gradient".
        bounds: range of valid inputs.

    Raises:
        ValueError: a setting out of its range, or the norm "l1".

    >>> weights = tf.constant([[1.0, -1.0], [-2.0, 2.0]])
    >>> x = tf.constant([[0.8, 0.1], [0.5, 0.2]])
    >>> attack = UniversalPerturbation(eps=0.25)
    >>> attack.find(lambda x: x @ weights, x, [0, 0]).numpy().tolist()
    [[-0.25, 0.25]]
    """

    eps: float
    norm: str = "linf"
    method: str = "gradient"
    epochs: int = 10
    batch_size: int = 64
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self):
        settle(self, norms=("linf", "l2"))
        check_counts(self, "epochs", "batch_size")
        if self.method not in METHODS:
            raise ValueError(
                f"`method` must be one of {', '.join(map(repr, METHODS))}, got "
                f"method={self.method!r}."
            )

    @property
    def name(self):
        parts = ["Universal"] + ([self.norm] if self.norm != "linf" else [])
        return " ".join(parts + ([self.method] if self.method != "gradient" else []))

    def find(self, model, x, y, seed=0) -> tf.Tensor:
        """The perturbation for a set of images.

        Args:
            model: Keras model or callable `(batch, ...) -> (batch, classes)`, logits out.
            x: `(images, ...)` floating point, inside the bounds. The model sees a batch at a
                time.
            y: `(images,)` int labels, or label vectors.
            seed: int, or int32 `(2,)` tensor, of the order of the images.

        Returns:
            float32 `(1, ...)`, of size at most `eps`. Added to an image it may leave the
            bounds: `apply` adds it properly.

        Raises:
            TypeError, ValueError: as calling the attack.
        """
        check_logit_model(model)
        x, y = check_images(x, self.bounds), check_labels(y)
        check_same_length(x, y)
        if not tf.executing_eagerly():
            return self._find(model, x, y, as_seed(seed), self.eps)
        check_labels(y, check_logits(call_logits(model, x[: self.batch_size])))
        found = tf.function(self._find, autograph=False)
        return found(model, x, y, as_seed(seed), tf.constant(float32_below(self.eps)))

    def apply(self, x, delta) -> tf.Tensor:
        """`x` with the perturbation added, inside ball and bounds.

        Args:
            x: `(batch, ...)` floating point, inside the bounds.
            delta: `(1, ...)`, from `find`.

        Returns:
            float32, the shape of `x`.

        Raises:
            TypeError, ValueError: `x` as in calling the attack, or `delta` of another shape.
        """
        x, delta = check_images(x, self.bounds), tf.cast(delta, tf.float32)
        if not delta.shape.is_compatible_with([1, *x.shape[1:]]):
            raise ValueError(
                f"`delta` must have the shape {(1, *x.shape[1:])} of one image, got "
                f"{tuple(delta.shape)}. Take what `find` returns."
            )
        return Ball(self.norm, self.eps, self.bounds).place(x, delta)

    def run(self, model, x, y, seed, eps):
        delta = self._find(model, x, y, seed, eps)
        x_adv = Ball(self.norm, eps, self.bounds).place(x, delta)
        y = hard_labels(y)
        before, after = (
            tf.argmax(call_logits(model, images), axis=1, output_type=tf.int32) != y
            for images in (x, x_adv)
        )
        # It is made for the others: an image that was wrong without it may be right with it.
        return tf.where(rows_of(before & ~after, x), x, x_adv)

    def _find(self, model, x, y, seed, eps) -> tf.Tensor:
        # The paper's way of "deepfool" is one image after the other.
        size = self.batch_size if self.method == "gradient" else 1
        step = self._climb if self.method == "gradient" else self._cross
        images = tf.shape(x)[0]
        batches = (images + size - 1) // size
        ball = Ball(self.norm, eps, _ANYWHERE)

        def walk(epoch, delta):
            order = tf.argsort(uniform([images], fold(seed, epoch)))

            def take(batch, delta):
                rows = order[batch * size : (batch + 1) * size]
                passed = (epoch * batches + batch) / (self.epochs * batches)
                some_x, some_y = tf.gather(x, rows), tf.gather(y, rows)
                step_size = eps * _STEP * (1.0 - tf.cast(passed, tf.float32))
                return batch + 1, step(model, some_x, some_y, delta, ball, step_size)

            return epoch + 1, _repeat(take, batches, delta)

        start = tf.zeros_like(x[:1])
        delta = _repeat(walk, self.epochs, start)
        return ball.place(start, delta)

    def _climb(self, model, x, y, delta, ball, step_size) -> tf.Tensor:
        """A step towards more images fooled, by the mean gradient of those in `x`."""

        def fooled_softly(y, logits):
            margins = margin(y, logits)
            scale = tf.stop_gradient(tf.reduce_mean(tf.abs(margins)))
            return tf.sigmoid(_SLOPE * tf.math.divide_no_nan(margins, scale))

        moved = into_bounds(x + delta, x, self.bounds)
        _, gradient = value_and_gradient(make_goal(model, y, fooled_softly), moved)
        # Where the bounds hold an entry, only its way back counts.
        held = ((moved <= self.bounds[0]) & (gradient < 0)) | (
            (moved >= self.bounds[1]) & (gradient > 0)
        )
        gradient = tf.reduce_mean(tf.where(held, 0.0, gradient), axis=0, keepdims=True)
        return ball.ascend(delta, gradient, tf.zeros_like(delta), step_size)

    def _cross(self, model, x, y, delta, ball, _) -> tf.Tensor:
        """`delta` and the shortest way over the boundary from there, for the image in `x`."""
        moved = into_bounds(x + delta, x, self.bounds)
        # In l2 for every norm: a step in linf fills the ball, and the last image alone decides.
        deepfool = DeepFool(norm="l2", steps=_CROSSINGS, relaxation=1.0, bounds=self.bounds)
        crossed = deepfool.run(model, moved, y, tf.zeros([2], tf.int32), float("inf"))
        way = tf.reduce_sum(crossed - moved, axis=0, keepdims=True)
        return ball.project(delta + way, tf.zeros_like(delta))


def _repeat(body, times, delta) -> tf.Tensor:
    """`delta` after `body(number, delta) -> (number + 1, delta)` has run `times` times."""
    start = tf.constant(0), delta
    _, delta = tf.while_loop(
        lambda *_: True, body, start, parallel_iterations=1, maximum_iterations=times
    )
    return delta
