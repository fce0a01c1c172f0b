"""What layers draw seeds from is as it was found."""

import random

import pytest

from keras_robust._keras import LEGACY, keras
from keras_robust._random_state import keep_random_state, legacy_generator, no_legacy_generator


def seed_drawn():
    """As a Dropout or an initializer draws one."""
    return legacy_generator().randint(1, 9**9) if LEGACY else random.randint(1, 9**9)


def test_the_callers_generators_draw_on_as_if_nothing_had_been():
    @keep_random_state()
    def make():
        keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.Dropout(0.1)])
        return random.random(), seed_drawn()

    keras.utils.set_random_seed(1)
    expected = random.random(), seed_drawn()
    keras.utils.set_random_seed(1)
    assert make() == make() == make()
    assert (random.random(), seed_drawn()) == expected
    state = random.getstate()
    with pytest.raises(KeyError), keep_random_state():
        seed_drawn()
        raise KeyError
    assert random.getstate() == state


@pytest.mark.skipif(not LEGACY, reason="of tf_keras")
def test_without_its_own_generator_tf_keras_draws_from_pythons():
    def kernel():
        return keras.initializers.GlorotUniform()((2, 2)).numpy().tolist()

    keras.utils.set_random_seed(1)
    own = legacy_generator()
    with no_legacy_generator():
        assert legacy_generator() is None
        random.seed(3)
        first = kernel()
        random.seed(3)
        assert kernel() == first
    assert legacy_generator() is own
