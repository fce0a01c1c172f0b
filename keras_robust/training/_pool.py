"""A pool of activations with their labels, of which the oldest give way to new ones."""

import tensorflow as tf

from keras_robust._seed import uniform
from keras_robust.training._carried import replica_variable


class Pool:
    """A ring of rows with their labels, for each replica its own.

    Its shape is fixed, so that a step that writes to it and draws from it compiles under XLA.

    Args:
        strategy: the trainer's `tf.distribute` strategy.
        rows: how many it holds.
        shape: of a row.
        label_shape: of a row's label, `()` or `(classes,)`.
        label_dtype: of the labels.
    """

    def __init__(self, strategy, rows: int, shape, label_shape, label_dtype):
        self.strategy, self.rows = strategy, rows
        with strategy.scope():
            self.values = replica_variable(tf.zeros([rows, *shape]))
            self.labels = replica_variable(tf.zeros([rows, *label_shape], label_dtype))
            # Where the next row goes, and how many there are.
            self.counts = replica_variable(tf.zeros([2], tf.int32))

    def write(self, values, labels) -> None:
        """Puts rows in the place of the oldest, at most as many as the pool holds."""
        start, filled = tf.unstack(tf.convert_to_tensor(self.counts))
        count = tf.shape(values)[0]
        places = ((start + tf.range(count)) % self.rows)[:, None]
        for variable, new in ((self.values, values), (self.labels, labels)):
            old = tf.convert_to_tensor(variable)
            new = tf.tensor_scatter_nd_update(old, places, tf.cast(new, old.dtype))
            variable.assign(tf.ensure_shape(new, variable.shape))
        filled = tf.minimum(filled + count, self.rows)
        self.counts.assign(tf.stack([(start + count) % self.rows, filled]))

    def draw(self, count, seed) -> tuple[tf.Tensor, tf.Tensor]:
        """`count` rows with their labels, drawn with replacement from those that are filled."""
        filled = tf.convert_to_tensor(self.counts)[1]
        places = tf.cast(uniform([count], seed) * tf.cast(filled, tf.float32), tf.int32)
        places = tf.minimum(places, tf.maximum(filled - 1, 0))
        return tuple(tf.gather(variable, places) for variable in (self.values, self.labels))

    def arrays(self):
        """What is filled on the first replica of this machine: values and labels."""
        values, labels, (_, filled) = (
            self.strategy.experimental_local_results(variable)[0].numpy()
            for variable in (self.values, self.labels, self.counts)
        )
        return values[:filled], labels[:filled]

    def variables(self) -> list[tf.Variable]:
        """Values, labels and counts, each replica's own; `Replicas` reads them."""
        return [self.values, self.labels, self.counts]
