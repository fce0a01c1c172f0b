"""Seeds for stateless random numbers: the same in eager code, graphs and XLA."""

import numbers

import tensorflow as tf

# Left to itself, XLA draws with another algorithm than the rest of TensorFlow.
ALGORITHM = "philox"


def as_seed(seed) -> tf.Tensor:
    """An int32 `(2,)` seed from an int of any size, or the tensor itself.

    >>> as_seed(7).numpy().tolist()
    [7, 0]
    """
    if isinstance(seed, numbers.Integral):
        seed = int(seed)
        return tf.constant([seed & 0x7FFFFFFF, (seed >> 31) & 0x7FFFFFFF], tf.int32)
    wrong = isinstance(seed, (type(None), str))
    seed = seed if wrong else tf.convert_to_tensor(seed)
    if not wrong and seed.shape.rank == 0 and seed.dtype.is_integer:
        return tf.stack([tf.cast(seed, tf.int32), 0])
    if wrong or seed.shape.rank != 1 or seed.shape[0] != 2 or not seed.dtype.is_integer:
        raise ValueError(f"`seed` must be an int or an integer tensor of shape (2,), got {seed!r}.")
    return tf.cast(seed, tf.int32)


def fold(seed, number) -> tf.Tensor:
    """A new seed from `seed` and an integer, such as a step or a replica."""
    return tf.random.fold_in(seed, tf.cast(number, tf.int32), alg=ALGORITHM)


def split(seed) -> list[tf.Tensor]:
    """Two independent seeds."""
    return tf.unstack(tf.random.split(seed, 2, alg=ALGORITHM))


def uniform(shape, seed, low=0.0, high=1.0) -> tf.Tensor:
    """Uniform float32 numbers, strictly between `low` and `high`.

    From 23 random bits each: TensorFlow and XLA agree on a seed's bits, not on its floats.
    """
    bits = tf.random.stateless_uniform(
        shape, seed, minval=None, maxval=None, dtype=tf.uint32, alg=ALGORITHM
    )
    whole = tf.cast(tf.bitwise.right_shift(bits, tf.constant(9, tf.uint32)), tf.int32)
    share = (tf.cast(whole, tf.float32) + 0.5) * 2.0**-23
    return low + (high - low) * share


def normal(shape, seed) -> tf.Tensor:
    """Standard normal float32 numbers."""
    return 2.0**0.5 * tf.math.erfinv(uniform(shape, seed, -1.0, 1.0))
