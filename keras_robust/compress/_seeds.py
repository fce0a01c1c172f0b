"""Seeds everything random for a while, and puts it back."""

import contextlib
import random

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context as eager

from keras_robust._random_state import no_legacy_generator


@contextlib.contextmanager
def seeded(seed: int):
    """Runs a block under `seed`; Python's, numpy's and TensorFlow's state are then as before.

    Dropout, weight initializers and TF-MOT draw from these global states, and not from tf_keras's
    own generator, which stands aside.
    """
    running = eager.context()
    before = random.getstate(), np.random.get_state(), running._seed, getattr(running, "_rng", None)
    random.seed(seed)
    np.random.seed(seed)
    tf.random.set_seed(seed)
    try:
        with no_legacy_generator():
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        running._seed = before[2]
        running._rng = before[3]
