"""The parts of HopSkipJump: finding a start, going to the boundary, and one step along it."""

import math
import typing

import tensorflow as tf

from keras_robust._seed import fold, normal, split, uniform
from keras_robust.attacks._attack import rows_of
from keras_robust.attacks._best import choose
from keras_robust.attacks._threat import size

# Rows that the model is asked at once when few images are left.
_CALL = 128
# Starts tried for each image.
_STARTS = 60
# Tries of a shorter step before an image stays where it is.
_TRIES = 20


class Point(typing.NamedTuple):
    """A misclassified point near each image.

    Attributes:
        x_adv: `(batch, ...)` float32.
        distance: `(batch,)` float32, from the image.
        reach: `(batch,)` float32, how much longer than the paper's its probes are.
    """

    x_adv: tf.Tensor
    distance: tf.Tensor
    reach: tf.Tensor


class Walk:
    """What is done with all images at once, counting the rows asked for each.

    Attributes:
        settings: the attack.
        missed: `(x_adv, labels) -> (batch,)` bool, whether they are misclassified.
        seed: int32 `(2,)`.
        shape: of the images, `(batch, ...)`.
    """

    def __init__(self, settings, missed, seed, shape):
        self.settings, self.missed, self.seed, self.shape = settings, missed, seed, shape
        self.norm, (self.low, self.high) = settings.norm, settings.bounds
        self.count = math.prod(shape[1:])
        # The paper's thresholds, but not below what float32 tells apart.
        power = 1.5 if self.norm == "l2" else 2.0
        self.halvings = min(max(math.ceil(power * math.log2(self.count)), 8), 22)

    def can_step(self, asked):
        """Whether enough queries are left for a step worth the name."""
        return asked + self.halvings + 10 < self.settings.queries

    def start(self, x, labels, wanted):
        """Rows asked, a misclassified point on the boundary, and which rows have one.

        Tried are uniform noise, salt and pepper, and other images of the batch.
        """

        def attempt(asked, start, lacking):
            rows = tf.where(lacking)
            candidate = self._start(x, tf.gather_nd(x, rows), rows, asked)
            found = self.missed(candidate, tf.gather_nd(labels, rows))
            at = tf.boolean_mask(rows, found)
            start = tf.tensor_scatter_nd_update(start, at, tf.boolean_mask(candidate, found))
            lacking = tf.tensor_scatter_nd_update(lacking, rows, ~found)
            return asked + 1, start, lacking

        asked, start, lacking = tf.while_loop(
            lambda asked, start, lacking: tf.reduce_any(lacking) & self.can_step(asked),
            attempt,
            (0, x, wanted),
            parallel_iterations=1,
            maximum_iterations=_STARTS,
        )
        found = wanted & ~lacking
        rows = tf.where(found)
        own = tf.gather_nd(x, rows), tf.gather_nd(labels, rows)
        near = self._to_boundary(*own, tf.gather_nd(start, rows))
        return asked + self.halvings, tf.tensor_scatter_nd_update(x, rows, near), found

    def step(self, x, labels, point, count, asked):
        """The `count`-th step: rows asked by now, and the points on the boundary it leads to."""
        many = tf.cast(self.settings.probes * tf.sqrt(tf.cast(count, tf.float32)), tf.int32)
        many = tf.minimum(many, self.settings.queries - asked - self.halvings - 2)
        share = point.reach / self.count
        near = tf.where(tf.equal(count, 1), 0.1 * (self.high - self.low), share * point.distance)
        direction, mean = self._normal(point.x_adv, labels, near, many, asked)
        # Probes too short for a model that rounds its input are all on one side.
        reach = tf.where(mean > 0.8, 4.0, tf.where(mean < -0.8, 0.5, 1.0)) * point.reach
        asked += many

        length = point.distance / tf.sqrt(tf.cast(count, tf.float32))
        asked, moved = self._shorten(point.x_adv, labels, direction, length, asked)
        x_adv = self._to_boundary(x, labels, moved)
        reach = tf.clip_by_value(reach, 1.0, float(self.count))
        return asked + self.halvings, Point(x_adv, distance(x, x_adv, self.norm), reach)

    def _start(self, x, part, rows, asked):
        one, other = split(fold(self.seed, asked))
        noise = uniform(tf.shape(part), one, self.low, self.high)
        shares = uniform(tf.concat([tf.shape(part)[:1], tf.ones_like(tf.shape(x)[1:])], 0), other)
        ends = tf.where(noise < (self.low + self.high) / 2, self.low, self.high)
        pepper = tf.where(uniform(tf.shape(part), other) < shares, ends, part)
        mates = tf.gather(x, (rows[:, 0] + tf.cast(asked, tf.int64)) % tf.shape(x, tf.int64)[0])
        kind = asked % 3
        return tf.where(kind == 0, noise, tf.where(kind == 1, pepper, mates))

    def _to_boundary(self, x, labels, x_adv):
        """The misclassified end of the way from `x` to `x_adv`, halved down to the boundary."""
        whole = rows_of(distance(x, x_adv, self.norm), x)

        def halve(low, high, near):
            middle = (low + high) / 2
            share = rows_of(middle, x)
            if self.norm == "l2":
                candidate = x + share * (x_adv - x)
            else:
                candidate = tf.clip_by_value(x_adv, x - share * whole, x + share * whole)
            candidate = tf.clip_by_value(candidate, self.low, self.high)
            missed = self.missed(candidate, labels)
            near = choose(missed, candidate, near)
            return tf.where(missed, low, middle), tf.where(missed, middle, high), near

        none = tf.zeros(tf.shape(x)[:1])
        _, _, near = tf.while_loop(
            lambda *_: tf.size(labels) > 0,
            halve,
            (none, none + 1.0, x_adv),
            parallel_iterations=1,
            maximum_iterations=self.halvings,
        )
        return near

    def _normal(self, x_adv, labels, near, many, asked):
        """Unit direction into the misclassified side, and the mean side of `many` probes.

        Args:
            x_adv: `(batch, ...)`, points on the boundary.
            near: `(batch,)`, l2 length of the probes.
        """
        rows = tf.shape(x_adv)[0]
        chunk = tf.maximum(_CALL // tf.maximum(rows, 1), 1)
        near = rows_of(near, x_adv)

        def probe(done, sides, ways, both):
            now = tf.minimum(chunk, many - done)
            repeat = [now] + [1] * (x_adv.shape.rank - 1)
            way = self._draw(tf.concat([[now * rows], tf.shape(x_adv)[1:]], 0), asked + done)
            centre, length = tf.tile(x_adv, repeat), tf.tile(near, repeat)
            candidate = tf.clip_by_value(centre + length * way, self.low, self.high)
            way = (candidate - centre) / length
            side = tf.where(self.missed(candidate, tf.tile(labels, [now])), 1.0, -1.0)

            def total(each):
                return tf.reduce_sum(tf.reshape(each, [now, rows, *x_adv.shape[1:]]), 0)

            sides += tf.reduce_sum(tf.reshape(side, [now, rows]), 0)
            return done + now, sides, ways + total(way), both + total(rows_of(side, way) * way)

        none = tf.zeros_like(x_adv)
        _, sides, ways, both = tf.while_loop(
            lambda done, *_: done < many,
            probe,
            (0, tf.zeros_like(labels, tf.float32), none, none),
            parallel_iterations=1,
        )
        mean = sides / tf.cast(many, tf.float32)
        centred = both - rows_of(mean, both) * ways
        gradient = tf.where(rows_of(tf.abs(mean) == 1.0, both), both, centred)
        if self.norm == "linf":
            return tf.sign(gradient), mean
        return tf.math.divide_no_nan(gradient, rows_of(size(gradient, "l2"), gradient)), mean

    def _draw(self, shape, number):
        seed = fold(self.seed, number)
        way = normal(shape, seed) if self.norm == "l2" else uniform(shape, seed, -1.0, 1.0)
        way = tf.ensure_shape(way, [None, *self.shape[1:]])
        return way / rows_of(size(way, "l2"), way)

    def _shorten(self, x_adv, labels, direction, length, asked):
        """`x_adv` moved along `direction` by the longest of `length / 2**k` that stays missed."""
        last = asked + _TRIES

        def attempt(asked, length, moved, waiting):
            rows = tf.where(waiting)
            way = tf.gather_nd(direction, rows)
            candidate = tf.gather_nd(x_adv, rows) + rows_of(tf.gather_nd(length, rows), way) * way
            candidate = tf.clip_by_value(candidate, self.low, self.high)
            missed = self.missed(candidate, tf.gather_nd(labels, rows))
            at = tf.boolean_mask(rows, missed)
            moved = tf.tensor_scatter_nd_update(moved, at, tf.boolean_mask(candidate, missed))
            waiting = tf.tensor_scatter_nd_update(waiting, rows, ~missed)
            return asked + 1, length / 2, moved, waiting

        asked, _, moved, _ = tf.while_loop(
            lambda asked, length, moved, waiting: (
                tf.reduce_any(waiting)
                & (asked < tf.minimum(last, self.settings.queries - self.halvings))
            ),
            attempt,
            (asked, length, x_adv, tf.ones_like(labels, tf.bool)),
            parallel_iterations=1,
        )
        return asked, moved


def distance(x, x_adv, norm) -> tf.Tensor:
    """Of each row, `(batch,)`, summed in float64."""
    return tf.cast(size(tf.cast(x_adv, tf.float64) - tf.cast(x, tf.float64), norm), tf.float32)
