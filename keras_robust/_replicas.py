"""What the replicas of one step tell each other, from inside each of them."""

import tensorflow as tf


def sum_over_replicas(values: list) -> list:
    """Each tensor's sum over all replicas."""
    context = tf.distribute.get_replica_context()
    if isinstance(context.strategy, tf.distribute.MirroredStrategy):
        # No collective on one machine: those of its replicas, which run side by side, must meet
        # in one order with the optimizer's in the same step.
        return list(context.merge_call(_add, args=(values,)))
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def share_of_replica(rows):
    """What a replica's mean over its rows counts in the sum of all replicas' means.

    A batch that cannot be shared out evenly gives some replicas fewer rows than others.

    Args:
        rows: `(rows, ...)`, the replica's share of the batch.

    Returns:
        A float32 scalar, of mean 1 over the replicas; the float 1.0 where there is one.
    """
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas == 1:
        return 1.0
    own = tf.cast(tf.shape(rows)[0], tf.float32)
    return own * replicas / sum_over_replicas([own])[0]


def _add(strategy, values):
    return [tf.add_n(strategy.experimental_local_results(value)) for value in values]
