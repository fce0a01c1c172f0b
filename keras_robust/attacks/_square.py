"""Square: random search over squares, with scores only."""

import dataclasses
import typing

import numpy as np
import tensorflow as tf

from keras_robust import losses
from keras_robust._seed import fold
from keras_robust.attacks._attack import Attack, check_counts, hard_labels, make_goal, settle
from keras_robust.attacks._best import choose
from keras_robust.attacks._square_search import Bumps, Frame, Signs
from keras_robust.attacks._threat import Ball

# The queries of 10,000 after which the window is halved in area.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclasses.dataclass(frozen=True)
class Square(Attack):
    """Random search over square windows, Andriushchenko et al. 2020.

    https://arxiv.org/abs/1912.00049, and for l1 Croce and Hein 2021,
    https://arxiv.org/abs/2103.01208. It needs logits but no gradient: models that hide their
    gradient fall to it, and so do device files and endpoints. Each query tries a
    random window of each image and keeps what raises the margin. Only images that still stand are
    asked, each with windows of its own.

    Inputs `(batch, n)` and `(batch, n, channels)` are searched by runs of neighbouring features
    in place of squares; in inputs of more axes the last is channels, the one before columns
    and all others are rows.

    Attributes:
        eps: radius in the units of the inputs.
        norm: "linf", "l2" or "l1".
        queries: candidates that each restart may ask for each image.
        p_init: share of the image that the first windows cover, in (0, 1].
        restarts: searches with other random numbers, for images that still stand.
        targeted: `y` are the labels to reach instead of those to leave.
        bounds: range of valid inputs.

    Raises:
        ValueError: a setting out of its range.

    >>> weights = tf.constant([[1.0, -1.0], [-2.0, 2.0]])
    >>> x = tf.constant([[0.5, 0.5]])
    >>> Square(eps=0.25, queries=50)(lambda x: x @ weights, x, [1]).numpy().tolist()
    [[0.75, 0.25]]
    """

    eps: float
    norm: str = "linf"
    queries: int = 5000
    p_init: float = 0.8
    restarts: int = 1
    targeted: bool = False
    bounds: tuple[float, float] = (0.0, 1.0)

    needs_gradient = False
    _channels_last = True

    def __post_init__(self):
        settle(self)
        check_counts(self, "queries", "restarts")
        if not 0 < self.p_init <= 1:
            raise ValueError(f"`p_init` must be in (0, 1], got p_init={self.p_init!r}.")
        if not isinstance(self.targeted, bool):
            raise TypeError(f"`targeted` must be True or False, got targeted={self.targeted!r}.")

    @property
    def name(self):
        parts = [f"Square-{self.queries}"]
        parts += [f"x{self.restarts}"] if self.restarts > 1 else []
        parts += [self.norm] if self.norm != "linf" else []
        return " ".join(parts + (["targeted"] if self.targeted else []))

    def run(self, model, x, y, seed, eps):
        ball, frame = Ball(self.norm, eps, self.bounds), Frame.of(x)
        search = (Signs if self.norm == "linf" else Bumps)(ball, frame, self._sizes(frame))

        def ask(x_adv, labels):
            goal = make_goal(model, labels, losses.margin, reach=self.targeted)
            return goal(tf.reshape(x_adv, [-1, *x.shape[1:]]))

        def step(query, best, standing):
            turn, number = query % self.queries, fold(seed, query)
            candidate = tf.cond(
                tf.equal(turn, 0),
                lambda: search.start(standing.ground, number),
                lambda: search.change(standing.ground, standing.x_adv, turn, number),
            )
            candidate = tf.ensure_shape(candidate, [None, *frame])
            value = ask(candidate, standing.labels)
            gains = value.fooled | (value.climb > standing.climb) | tf.equal(turn, 0)
            standing = standing._replace(
                x_adv=choose(gains, candidate, standing.x_adv),
                climb=choose(gains, value.climb, standing.climb),
            )
            best, standing = tf.cond(
                tf.reduce_any(value.fooled) | tf.equal(turn, self.queries - 1),
                lambda: _retire(best, standing, value.fooled),
                lambda: (best, standing),
            )
            return query + 1, best, standing

        images = tf.reshape(x, [-1, *frame])
        labels = hard_labels(y)
        first = ask(images, labels)
        rows = tf.range(tf.shape(images)[0])
        every = _Standing(rows, search.ground(images), images, labels, first.climb)
        state = 0, _Best(images, first.climb), _keep(every, ~first.fooled & (eps > 0))
        _, best, _ = tf.while_loop(
            lambda query, best, standing: tf.size(standing.row) > 0,
            step,
            state,
            shape_invariants=tf.nest.map_structure(_any_rows, state),
            parallel_iterations=1,
            maximum_iterations=self.restarts * self.queries,
        )
        x_adv = tf.reshape(best.x_adv, tf.shape(x))
        if self.norm != "linf":  # whose candidates are exact
            x_adv = ball.place(x, x_adv - x)
        return tf.stop_gradient(tf.ensure_shape(x_adv, x.shape))

    def _sizes(self, frame) -> np.ndarray:
        """The side of the window at each query of a restart, int32 `(queries,)`."""
        # The paper's schedule for 10,000 queries, shortened or stretched.
        query = np.arange(-1, self.queries - 1) * 10000 // self.queries
        share = self.p_init / 2.0 ** np.searchsorted(_HALVINGS, query)
        return np.clip(frame.sides(share), 1, frame.longest).astype("int32")


class _Standing(typing.NamedTuple):
    """The images still to be fooled, and how far each one's search has come."""

    row: tf.Tensor
    ground: tuple[tf.Tensor, ...]
    x_adv: tf.Tensor
    labels: tf.Tensor
    climb: tf.Tensor


class _Best(typing.NamedTuple):
    """The best of all images so far, and its margin."""

    x_adv: tf.Tensor
    climb: tf.Tensor


def _keep(standing: _Standing, mask) -> _Standing:
    return tf.nest.map_structure(lambda part: tf.boolean_mask(part, mask), standing)


def _retire(best: _Best, standing: _Standing, fooled):
    """Writes down what was reached, and leaves the rows that are not `fooled`."""
    better = fooled | (standing.climb > tf.gather(best.climb, standing.row))
    reached = _keep(standing, better)
    at = reached.row[:, None]
    best = _Best(
        tf.tensor_scatter_nd_update(best.x_adv, at, reached.x_adv),
        tf.tensor_scatter_nd_update(best.climb, at, reached.climb),
    )
    return best, _keep(standing, ~fooled)


def _any_rows(part) -> tf.TensorShape:
    return tf.TensorShape([None, *part.shape[1:]] if tf.is_tensor(part) else [])
