"""Seeds for stateless random numbers: the same in eager code, graphs and XLA."""

import tensorflow as tf


def as_seed(seed) -> tf.Tensor:
    """An int32 `(2,)` seed from an int of any size, or the tensor itself.

    >>> as_seed(7).numpy().tolist()
    [7, 0]
    """
    if isinstance(seed, int):
        return tf.constant([seed & 0x7FFFFFFF, (seed >> 31) & 0x7FFFFFFF], tf.int32)
    seed = tf.convert_to_tensor(seed)
    if seed.shape.rank == 0 and seed.dtype.is_integer:
        return tf.stack([tf.cast(seed, tf.int32), 0])
    if seed.shape.rank != 1 or seed.shape[0] != 2 or not seed.dtype.is_integer:
        raise ValueError(f"`seed` must be an int or an integer tensor of shape (2,), got {seed}.")
    return tf.cast(seed, tf.int32)


def fold(seed, number) -> tf.Tensor:
    """A new seed from `seed` and an integer, such as a step or a replica."""
    return tf.random.experimental.stateless_fold_in(seed, tf.cast(number, tf.int32))
