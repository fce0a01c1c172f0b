"""The perturbation that an objective carries from step to step."""

import numpy as np
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
        """What `Replicas` reads."""
        return [self.variable]


def carried_for(objective, strategy, examples, rows) -> Carried:
    """What `objective` carries for batches of `rows` such as `examples`.

    Raises:
        ValueError: no examples could be seen.
    """
    if examples is None:
        raise ValueError(
            f"{objective!r} carries a perturbation for each row of a batch, and how many there are "
            "cannot be seen in `x`. Give it arrays or a tf.data.Dataset."
        )
    return Carried(strategy, rows, examples[0].shape[1:])


def replica_variable(value) -> tf.Variable:
    """A variable that starts as `value` and of which each replica has its own."""
    return tf.Variable(
        value,
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


class Replicas:
    """Reads and writes what each replica holds in some `replica_variable`s.

    Args:
        strategy: the trainer's `tf.distribute` strategy.
        variables: those of `Carried.variables` and the like.
    """

    def __init__(self, strategy, variables):
        self.strategy, self.variables = strategy, variables
        self._gather = tf.function(self._gathered, autograph=False)

    def values(self) -> list[np.ndarray]:
        """Those of each variable in turn, by the replicas' numbers.

        Among several workers all must call it together.
        """
        own = [self.strategy.experimental_local_results(v) for v in self.variables]
        if any(len(values) < self.strategy.num_replicas_in_sync for values in own):
            own = self._gather()
        return [value.numpy() for values in own for value in values]

    def assign(self, values) -> None:
        """Gives each replica on this machine its own of what `values` read."""
        if not self.variables:
            return
        replicas = self.strategy.num_replicas_in_sync
        run = tf.function(lambda: self.strategy.run(_number), autograph=False)
        numbers = [int(n) for n in self.strategy.experimental_local_results(run())]
        for i, variable in enumerate(self.variables):
            own = self.strategy.experimental_local_results(variable)
            for replica, number in zip(own, numbers, strict=True):
                replica.assign(values[i * replicas + number])

    def _gathered(self):
        def read():
            own = [tf.convert_to_tensor(variable)[None] for variable in self.variables]
            return tf.distribute.get_replica_context().all_gather(own, axis=0)

        gathered = self.strategy.run(read)
        return [self.strategy.experimental_local_results(values)[0] for values in gathered]


def _number():
    """That of the replica in whose context it is called."""
    return tf.identity(tf.distribute.get_replica_context().replica_id_in_sync_group)
