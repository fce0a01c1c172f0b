"""The perturbation that an objective carries from step to step."""

import tensorflow as tf


class Carried:
    """A row of perturbation for each row of a batch, zero at first, for each replica its own.

    Its shape is fixed, so that a step that reads and writes it compiles under XLA: a shorter
    batch uses the first rows, a longer one begins again at the first.

    Args:
        strategy: the trainer's `tf.distribute` strategy.
        rows: size of the global batch.
        shape: of an input, without the batch axis.
    """

    def __init__(self, strategy, rows: int, shape):
        self.strategy, self.rows = strategy, -(-rows // strategy.num_replicas_in_sync)
        with strategy.scope():
            self.variable = replica_variable(tf.zeros([self.rows, *shape]))

    def read(self, x) -> tf.Tensor:
        """What is carried, for the rows of `x`; inside a replica's step."""
        rows = tf.range(tf.shape(x)[0]) % self.rows
        return tf.ensure_shape(tf.gather(self.variable, rows), x.shape)

    def write(self, delta) -> None:
        """Carries `delta` on; inside a replica's step."""
        rest = tf.convert_to_tensor(self.variable)[tf.shape(delta)[0] :]
        kept = tf.concat([delta, rest], axis=0)[: self.rows]
        self.variable.assign(tf.ensure_shape(kept, self.variable.shape))

    def variables(self) -> list[tf.Variable]:
        """Those of the replicas on this machine."""
        return list(self.strategy.experimental_local_results(self.variable))


def replica_variable(value) -> tf.Variable:
    """A variable that starts as `value` and of which each replica has its own."""
    return tf.Variable(
        value,
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )
