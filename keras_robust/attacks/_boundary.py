"""Linearised decision boundaries: the nearest one, and the shortest step onto it in bounds."""

import tensorflow as tf

from keras_robust.attacks._attack import call_logits, rows_of
from keras_robust.attacks._threat import size

# The norm in which a boundary's normal is measured, so that gap / size is a distance.
_DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}
# Newton's method ends when no row moves; in a thousand random rows it took at most 12 rounds.
_ROUNDS = 50
# 1.0 as the bits of a float32: the ordinal of the largest relative weight.
_ONE = 0x3F800000


def nearest_boundary(model, x, y, others, norm):
    """The boundary that is nearest to `x` when the model is linearised there.

    Args:
        model: Keras model or callable that returns logits.
        x: `(batch, ...)` float32.
        y: `(batch,)` int32, one side of every boundary.
        others: `(batch, k)` int32, the classes on the other side.
        norm: what a distance is measured in: "linf", "l2" or "l1".

    Returns:
        `(rise, normal)`: what `normal` times a step from `x` must be to reach the boundary,
        `(batch,)`, positive while `y` has the larger logit; and the gradient of the other
        class's logit minus that of `y`, the shape of `x`. Entries of the gradient that are
        not finite count as zero.
    """
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(x)
        logits = call_logits(model, x)
    classes = tf.shape(logits)[1]
    own = tf.one_hot(y, classes)
    # Equal logits, frequent in quantized models, count as just short of the boundary: a step of
    # zero would stay there for ever.
    tie = 1e-6 * tf.reduce_max(tf.abs(logits), axis=1)

    def boundary(column):
        towards = tf.one_hot(others[:, column], classes) - own
        normal = tape.gradient(logits, x, output_gradients=towards)
        if normal is None:
            raise ValueError(
                "`model` has no gradient with respect to its input: it does not use it, or it "
                "goes through numpy or another operation without a gradient. Write it in "
                "TensorFlow operations, or use an attack without gradients."
            )
        rise = -tf.reduce_sum(tf.where(towards == 0, 0.0, towards * logits), axis=1)
        return _finite(tf.where(rise == 0, tie, rise)), _finite(normal)

    def nearer(column, rise, normal, distance):
        new_rise, new_normal = boundary(column)
        new_distance = _distance(new_rise, new_normal, norm)
        gains = new_distance < distance
        return (
            column + 1,
            tf.where(gains, new_rise, rise),
            tf.where(rows_of(gains, x), new_normal, normal),
            tf.where(gains, new_distance, distance),
        )

    if others.shape[1] == 1:
        return boundary(0)
    none = tf.zeros_like(tie)
    _, rise, normal, _ = tf.while_loop(
        lambda column, *_: column < tf.shape(others)[1],
        nearer,
        (0, none, tf.zeros_like(x), none + float("inf")),
        parallel_iterations=1,
    )
    return rise, normal


def shortest_step(x, normal, rise, norm, bounds) -> tf.Tensor:
    """The smallest step whose product with `normal` is `rise` and that stays in bounds.

    Every entry moves in the direction that helps, by a length between 0 and the room that the
    bounds leave it. In linf all lengths are equal and in l2 proportional to the entry of
    `normal`, but for those that hit the bounds; in l1 the entries with the largest normal go
    all the way and the others rest. Exact, not a projection on the boundary and then a clip.

    Args:
        x: `(batch, ...)` float32.
        normal: the shape of `x`.
        rise: `(batch,)`, of either sign.
        norm: "linf", "l2" or "l1".
        bounds: range of valid inputs.

    Returns:
        The step, the shape of `x`. Where the bounds keep `x` from getting there, the step that
        comes nearest; zero where `normal` is.

    >>> x, normal = tf.constant([[0.5, 0.9]]), tf.constant([[1.0, 1.0]])
    >>> shortest_step(x, normal, tf.constant([0.5]), "linf", (0.0, 1.0)).numpy().round(3)
    array([[0.4, 0.1]], dtype=float32)
    """
    shape = tf.shape(x)
    flat = tf.reshape(x, [shape[0], -1])
    normal = tf.reshape(normal, tf.shape(flat))
    rise = rise[:, None]
    scale = tf.reduce_max(tf.abs(normal), axis=1, keepdims=True)
    # Relative to the largest entry: squares of tiny gradients would vanish.
    weight = tf.math.divide_no_nan(tf.abs(normal), scale)
    need = tf.math.divide_no_nan(tf.abs(rise), scale)
    way = tf.sign(normal) * tf.where(rise < 0, -1.0, 1.0)
    room = tf.where(way > 0, bounds[1] - flat, flat - bounds[0])
    room = tf.where(weight > 0, tf.maximum(room, 0.0), 0.0)
    if norm == "l1":
        length = _fill_steepest(weight, room, need)
    else:
        length = _fill_evenly(weight, room, need, weight if norm == "l2" else tf.ones_like(weight))
    # Out of reach: all the way, which rounding in the sums must not take back.
    length = tf.where(_sum(weight * room) <= need, room, length)
    return tf.reshape(way * length, shape)


def into_bounds(point, x, bounds) -> tf.Tensor:
    """`point` clipped to the bounds, or to an `x` that is a rounding error outside them."""
    low, high = tf.minimum(x, bounds[0]), tf.maximum(x, bounds[1])
    return tf.clip_by_value(point, low, high)


def _distance(rise, normal, norm) -> tf.Tensor:
    """How far the boundary is in `norm`, `(batch,)`; very far where the gradient vanished."""
    scale = size(normal, "linf")
    unit = tf.math.divide_no_nan(normal, rows_of(scale, normal))
    return tf.abs(rise) / (scale * size(unit, _DUAL[norm]) + 1e-30)


def _fill_evenly(weight, room, need, rate) -> tf.Tensor:
    """`min(t * rate, room)` with the `t` at which the weighted sum is `need`.

    The sum is concave and piecewise linear in `t`: Newton's method from zero climbs from below,
    and once the entries that are full stay the same it has arrived.
    """
    reached = weight * room
    slopes = weight * rate

    def climb(t, _):
        full = t * rate >= room
        left = need - _sum(tf.where(full, reached, 0.0))
        new = tf.maximum(t, tf.math.divide_no_nan(left, _sum(tf.where(full, 0.0, slopes))))
        return new, tf.reduce_any(new > t)

    start = tf.zeros_like(need), tf.constant(True)
    t, _ = tf.while_loop(
        lambda _, moved: moved, climb, start, maximum_iterations=_ROUNDS, parallel_iterations=1
    )
    return tf.minimum(t * rate, room)


def _fill_steepest(weight, room, need) -> tf.Tensor:
    """Full `room` for the largest weights, until the weighted sum is `need`.

    The last weight that is needed is found by halving between the bits of two float32, which
    are ordered like the numbers: as exact as sorting, and faster. Equal weights share.
    """
    reached = weight * room
    bits = tf.bitcast(weight, tf.int32)

    def halve(enough, short):
        middle = enough + (short - enough) // 2
        fits = _sum(tf.where(bits >= middle, reached, 0.0)) >= need
        return tf.where(fits, middle, enough), tf.where(fits, short, middle)

    start = tf.zeros_like(need, tf.int32), tf.fill(tf.shape(need), _ONE + 1)
    last, _ = tf.while_loop(
        lambda *_: True, halve, start, maximum_iterations=31, parallel_iterations=1
    )
    left = need - _sum(tf.where(bits > last, reached, 0.0))
    share = tf.math.divide_no_nan(left, _sum(tf.where(bits == last, reached, 0.0)))
    share = tf.clip_by_value(share, 0.0, 1.0)
    return tf.where(bits > last, room, tf.where(bits == last, share * room, 0.0))


def _finite(values) -> tf.Tensor:
    return tf.where(tf.math.is_finite(values), values, 0.0)


def _sum(values) -> tf.Tensor:
    return tf.reduce_sum(values, axis=1, keepdims=True)
