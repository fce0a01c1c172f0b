"""The best perturbation of each example that a climb has seen so far."""

import typing

import tensorflow as tf

from keras_robust.attacks._attack import Value, rows_of


class Best(typing.NamedTuple):
    """Perturbations and their values.

    Attributes:
        delta: `(batch, ...)` float32.
        value: what the goal says at `x + delta`.
    """

    delta: tf.Tensor
    value: Value


def unseen(delta) -> Best:
    """`delta` before the goal has looked at it: every value is better."""
    rows = tf.shape(delta)[:1]
    return Best(delta, Value(tf.fill(rows, tf.float32.min), tf.zeros(rows, tf.bool)))


def better(old: Best, new: Best) -> Best:
    """Row by row the better of two: first one that fools the model, then the higher loss."""
    gains = (new.value.fooled & ~old.value.fooled) | (
        (new.value.fooled == old.value.fooled) & (new.value.climb > old.value.climb)
    )
    return choose(gains, new, old)


def choose(mask, ours, theirs):
    """Row by row `ours` where `mask`, else `theirs`: tensors or nests of them."""
    return tf.nest.map_structure(
        lambda one, other: tf.where(rows_of(mask, one), one, other), ours, theirs
    )
