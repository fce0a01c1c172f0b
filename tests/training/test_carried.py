"""What is carried from step to step: rows for shorter and longer batches."""

import numpy as np
import tensorflow as tf

from keras_robust.training._carried import Carried


def rows(*numbers):
    return tf.constant([[float(n)] * 2 for n in numbers])


def test_short_batches_use_the_first_rows_and_long_ones_begin_again():
    carried = Carried(tf.distribute.get_strategy(), 3, (2,))
    np.testing.assert_array_equal(carried.read(rows(0, 0, 0)), rows(0, 0, 0))
    carried.write(rows(1, 2, 3))
    carried.write(rows(7))
    np.testing.assert_array_equal(carried.read(rows(0, 0)), rows(7, 2))
    np.testing.assert_array_equal(carried.read(rows(0, 0, 0, 0)), rows(7, 2, 3, 7))
    carried.write(rows(4, 5, 6, 8))
    np.testing.assert_array_equal(carried.variables()[0], rows(4, 5, 6))


def test_compiles_with_xla_at_every_size():
    carried = Carried(tf.distribute.get_strategy(), 3, (2,))

    @tf.function(jit_compile=True, input_signature=[tf.TensorSpec([None, 2])])
    def add_one(x):
        carried.write(carried.read(x) + 1.0)

    for size in (3, 1, 5):
        add_one(tf.zeros([size, 2]))
    np.testing.assert_array_equal(carried.variables()[0], rows(3, 2, 2))
