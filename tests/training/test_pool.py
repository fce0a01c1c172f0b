"""A ring of rows: the oldest give way, and what is drawn was written."""

import numpy as np
import tensorflow as tf

from keras_robust._seed import as_seed
from keras_robust.training._pool import Pool


def pool(rows=5):
    return Pool(tf.distribute.get_strategy(), rows, (2,), (), tf.int32)


def rows(*numbers):
    return tf.constant([[float(n), float(n)] for n in numbers]), tf.constant(numbers)


def test_the_oldest_rows_give_way():
    kept = pool()
    kept.write(*rows(1, 2))
    values, labels, counts = (v.numpy() for v in kept.variables())
    assert labels.tolist() == [1, 2, 0, 0, 0] and counts.tolist() == [2, 2]
    kept.write(*rows(3, 4, 5, 6))
    kept.write(*rows(7))
    values, labels, counts = (v.numpy() for v in kept.variables())
    assert labels.tolist() == [6, 7, 3, 4, 5] and counts.tolist() == [2, 5]
    np.testing.assert_array_equal(values, labels[:, None] * np.ones((1, 2)))


def test_only_filled_rows_are_drawn_all_of_them_and_evenly():
    kept = pool()
    kept.write(*rows(1, 2, 3))
    values, labels = (part.numpy() for part in kept.draw(3000, as_seed(0)))
    np.testing.assert_array_equal(values[:, 0], labels)
    share = np.bincount(labels, minlength=4) / 3000
    np.testing.assert_allclose(share, [0, 1 / 3, 1 / 3, 1 / 3], atol=0.04)
    again = kept.draw(3000, as_seed(0))[1].numpy()
    np.testing.assert_array_equal(again, labels)
    assert np.any(kept.draw(3000, as_seed(1))[1].numpy() != labels)


def test_compiles_with_xla_at_every_size():
    kept = pool()

    @tf.function(jit_compile=True, input_signature=[tf.TensorSpec([None, 2])])
    def add(x):
        kept.write(x, tf.cast(x[:, 0], tf.int32))
        return kept.draw(tf.shape(x)[0], as_seed(0))[1]

    for first in (1, 4, 5):
        new, _ = rows(*range(first, first + (3 if first == 1 else 1)))
        drawn = add(new)
    assert drawn.shape == (1,)
    assert kept.variables()[1].numpy().tolist() == [1, 2, 3, 4, 5]
