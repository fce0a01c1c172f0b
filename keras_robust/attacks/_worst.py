"""The worst of several candidates for each image."""

import tensorflow as tf

from keras_robust import losses
from keras_robust.attacks._attack import Value, make_goal
from keras_robust.attacks._best import Best, better, choose


def worst_of(model, x, y, candidate, count: int) -> tf.Tensor:
    """Row by row the first of `count` candidates that is misclassified, else the worst.

    Rows that are misclassified are not asked again. A row that only `x` itself fools the model
    with stays `x`: an attack leaves nothing better than it was.

    Args:
        model: as in `Attack.run`.
        x: `(batch, ...)` float32.
        y: as in `Attack.run`.
        candidate: `(number, x) -> x_adv` for some rows of `x`, `number` in [0, count).
    """

    def ask(x, y):
        return make_goal(model, y, losses.margin)(x)

    def attempt(number, best):
        rows = tf.where(~best.value.fooled)
        part = candidate(number, tf.gather_nd(x, rows))
        value = ask(part, tf.gather_nd(y, rows))
        known = tf.nest.map_structure(lambda each: tf.gather_nd(each, rows), best)
        return number + 1, _update(best, rows, better(known, Best(part, value)))

    rows = tf.shape(x)[:1]
    none = Best(x, Value(tf.fill(rows, tf.float32.min), tf.zeros(rows, tf.bool)))
    _, best = tf.while_loop(
        lambda number, best: tf.reduce_any(~best.value.fooled),
        attempt,
        (0, none),
        parallel_iterations=1,
        maximum_iterations=count,
    )
    rows = tf.where(~best.value.fooled)
    own = tf.gather_nd(x, rows)

    def left():
        stays = ask(own, tf.gather_nd(y, rows)).fooled
        return choose(stays, own, tf.gather_nd(best.delta, rows))

    # Not of an empty batch: oneDNN's fused convolutions give it the wrong shape.
    part = tf.cond(tf.size(rows) > 0, left, lambda: own)
    return tf.stop_gradient(tf.tensor_scatter_nd_update(best.delta, rows, part))


def _update(best: Best, rows, part: Best) -> Best:
    return tf.nest.map_structure(
        lambda old, new: tf.tensor_scatter_nd_update(old, rows, new), best, part
    )
