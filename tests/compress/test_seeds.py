import random

import numpy as np
import pytest
import tensorflow as tf

from keras_robust.compress._seeds import seeded


def draw():
    return random.random(), np.random.rand(), float(tf.random.uniform([]))


def test_same_seed_draws_the_same():
    with seeded(3):
        first = draw()
    with seeded(3):
        assert draw() == first
    with seeded(4):
        assert draw() != first


def test_states_are_put_back_also_after_an_error():
    random.seed(7)
    np.random.seed(7)
    tf.random.set_seed(7)
    expected = draw()
    random.seed(7)
    np.random.seed(7)
    tf.random.set_seed(7)
    with pytest.raises(KeyError):
        with seeded(0):
            draw()
            raise KeyError
    assert draw() == expected
