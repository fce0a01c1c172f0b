import dataclasses
import functools

import numpy as np
import tensorflow as tf

from keras_robust._identity import array_hash, describe
from keras_robust._keras import keras
from keras_robust.attacks import PGD


def test_arrays_differ_by_value_shape_and_type():
    base = np.arange(6, dtype=np.float32)
    others = [base + 1, base.reshape(2, 3), base.astype(np.float64), base[:5]]
    assert len({array_hash(array) for array in [base, *others]}) == 5
    assert array_hash(base) == array_hash(np.arange(6, dtype=np.float32))
    assert array_hash(base.reshape(2, 3).T) == array_hash(base.reshape(2, 3).T.copy())


def test_values_are_described_without_addresses(cnn):
    def loss(labels, logits):
        return logits[:, 0]

    assert " at 0x" in repr(PGD(0.1, loss=loss)) and " at 0x" not in describe(PGD(0.1, loss=loss))
    assert describe(PGD(0.1)) != describe(PGD(0.2))
    model = cnn()
    before = describe({"model": [model], "array": np.ones(3)})
    assert describe({"model": [model], "array": np.ones(3)}) == before
    model.set_weights([2 * weight for weight in model.get_weights()])
    assert describe({"model": [model], "array": np.ones(3)}) != before
    assert describe(np.ones(2000)) != describe(np.r_[np.ones(1000), 0, np.ones(999)])


def test_functions_are_told_apart_by_what_they_do_and_hold():
    def power(exponent, scale=1.0):
        def loss(labels, logits, offset=scale):
            return logits**exponent + offset

        return loss

    found = {describe(power(1)), describe(power(2)), describe(power(1, scale=2.0))}
    found |= {describe(lambda x: x + 1), describe(lambda x: x + 2), describe(lambda x: x.shape)}
    assert len(found) == 6 and not [each for each in found if "0x" in each]
    assert describe(power(1)) == describe(power(1))
    assert describe(power(None, scale=1)) != describe(power(1, scale=None))

    def calls_itself(x):
        return calls_itself(x - 1)

    assert describe(calls_itself) == describe(calls_itself)


def test_objects_are_told_apart_by_what_is_public():
    class Mine:
        def __init__(self, eps):
            self.eps, self.inner, self._count = eps, PGD(eps), object()

    assert describe(Mine(0.1)) == describe(Mine(0.1)) != describe(Mine(0.2))
    assert "PGD(" in describe(Mine(0.1)) and "0x" not in describe(Mine(0.1))


def test_losses_are_described_by_their_settings_and_not_their_names():
    loss = keras.losses.CategoricalCrossentropy
    assert describe(loss(name="one")) == describe(loss(name="other"))
    assert describe(loss()) != describe(loss(label_smoothing=0.1))
    assert describe(loss()) != describe(keras.losses.CategoricalHinge())
    assert describe(tf.constant([1.0])) == describe(np.ones(1, np.float32))


class Held:
    def __init__(self, scale):
        self.scale, self.self_made = scale, self.loss

    def loss(self, x):
        return self.scale * x


@dataclasses.dataclass
class Frozen:
    scale: float
    again: object = None

    def loss(self, x):
        return self.scale * x


def test_functions_are_told_apart_inside_of_what_wraps_them():
    def wrapped(by, exponent):
        def loss(x, offset):
            return x**exponent + offset

        return by(loss)

    def decorated(function):
        @functools.wraps(function)
        def inner(*args):
            return function(*args)

        return inner

    for by in (tf.function, decorated, functools.lru_cache):
        assert describe(wrapped(by, 1)) == describe(wrapped(by, 1)) != describe(wrapped(by, 2))
        assert " at 0x" not in describe(wrapped(by, 1))
    assert describe(tf.function(lambda x: x)) != describe(tf.function(lambda x: x + 1))
    found = {
        describe(functools.partial(wrapped(lambda f: f, n), offset=k)) for n in "12" for k in "34"
    }
    found |= {describe(functools.partial(wrapped(lambda f: f, 1), 3))}
    assert len(found) == 5
    for kind in (Held, Frozen):
        assert describe(kind(1).loss) == describe(kind(1).loss) != describe(kind(2).loss)
        assert " at 0x" not in describe(kind(1).loss)
    looped = Frozen(1)
    looped.again = looped.loss
    assert "0x" not in describe(looped.loss)
