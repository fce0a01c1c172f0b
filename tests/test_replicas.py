"""What the replicas of a step tell each other."""

import subprocess
import sys

import tensorflow as tf

from keras_robust._replicas import share_of_replica


def test_a_replica_alone_counts_for_all():
    assert share_of_replica(tf.zeros([3, 2])) == 1.0
    alone = tf.function(share_of_replica, input_signature=[tf.TensorSpec([None, 2])])
    assert alone(tf.zeros([3, 2])) == 1.0


def test_two_replicas_count_by_their_rows():
    code = """if True:
        import numpy as np
        import tensorflow as tf
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
        from keras_robust._replicas import share_of_replica, sum_over_replicas

        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

        def of_each(function, batch):
            # 5 rows are shared out as 3 and 2.
            data = tf.data.Dataset.range(5).batch(batch, drop_remainder=True)
            data = strategy.experimental_distribute_dataset(data)
            run = tf.function(lambda rows: strategy.run(function, [rows]))
            return np.array(strategy.experimental_local_results(run(next(iter(data)))))

        np.testing.assert_allclose(of_each(share_of_replica, 5), [1.2, 0.8], rtol=1e-6)
        np.testing.assert_array_equal(of_each(share_of_replica, 4), [1.0, 1.0])
        totals = of_each(lambda rows: sum_over_replicas([tf.reduce_sum(rows)])[0], 5)
        np.testing.assert_array_equal(totals, 10)
    """
    subprocess.run([sys.executable, "-c", code], check=True)
