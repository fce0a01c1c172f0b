"""The layer carried to the other Keras, and kept out of compression."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import LEGACY, keras
from keras_robust.layers import LowRankVirtual, counterpart


@pytest.fixture
def model():
    layers = [keras.layers.Flatten(), keras.layers.Dense(8), LowRankVirtual(2, every=2, name="lr")]
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), *layers, keras.layers.Dense(3, name="logits")]
    )
    x = np.random.default_rng(0).uniform(size=(12, 4, 4, 1)).astype("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss)
    model.fit(x, np.arange(12) % 3, batch_size=4, verbose=0)
    return model


def test_the_bridge_carries_it_there_and_back(model):
    there, back = kr.to_keras3, kr.from_keras3
    if not LEGACY:
        there, back = back, there
    twin = there(model)
    lr = twin.get_layer("lr")
    assert type(lr) is counterpart(LowRankVirtual, lr.keras) and not isinstance(lr, LowRankVirtual)
    assert {**lr.get_config(), "dtype": 0} == {**model.get_layer("lr").get_config(), "dtype": 0}
    for old, new in zip(model.get_layer("lr").get_weights(), lr.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    loss = lr.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    twin.compile(lr.keras.optimizers.SGD(0.05), loss)
    x = np.random.default_rng(0).uniform(size=(12, 4, 4, 1)).astype("float32")
    found = twin.fit(x, np.arange(12) % 3, batch_size=4, shuffle=False, verbose=0).history
    expected = model.fit(x, np.arange(12) % 3, batch_size=4, shuffle=False, verbose=0).history
    np.testing.assert_allclose(
        found["lr_projection_loss"], expected["lr_projection_loss"], rtol=1e-4
    )
    assert type(back(twin).get_layer("lr")) is LowRankVirtual


def test_a_file_of_the_other_keras_is_read(model, tmp_path):
    from keras_robust.bridge import load

    twin = (kr.to_keras3 if LEGACY else kr.from_keras3)(model)
    twin.save(tmp_path / "model.keras")
    loaded = load(tmp_path / "model.keras")
    assert type(loaded.get_layer("lr")) is LowRankVirtual
    np.testing.assert_array_equal(loaded.get_layer("lr").w, twin.get_layer("lr").w)


@pytest.mark.skipif(not LEGACY, reason="compress needs tf_keras")
@pytest.mark.filterwarnings("ignore")
def test_compression_leaves_it_alone_and_it_goes_on_learning(model):
    from keras_robust.compress._cluster import _possible as clusterable

    lr, x = model.get_layer("lr"), np.random.default_rng(0).uniform(size=(24, 4, 4, 1))
    assert not kr.compress.Prune(0.5)._possible(lr) and not clusterable(lr)
    data = tf.data.Dataset.from_tensor_slices((x.astype("float32"), np.arange(24) % 3)).batch(8)
    result = kr.compress.Recipe([kr.compress.Quantize()]).run(model, data, epochs=1, verbose=0)
    found = result.model.get_layer("lr")
    assert isinstance(found, LowRankVirtual) and int(lr._count) == 3 < int(found._count)


def test_the_bridge_carries_our_regularizers_inside_plain_layers():
    def dense(penalty):
        return keras.layers.Dense(4, kernel_regularizer=penalty)

    penalties = [kr.layers.ConditionPenalty(0.1), kr.layers.GroupLasso(0.02)]
    model = keras.Sequential([keras.Input((5,)), *map(dense, penalties)])
    there, back = kr.to_keras3, kr.from_keras3
    if not LEGACY:
        there, back = back, there
    twin = there(model)
    again = back(twin)
    want = [float(loss) for loss in model.losses]
    assert len(want) == 2 and min(want) > 0
    np.testing.assert_allclose([float(loss) for loss in twin.losses], want, rtol=1e-6)
    np.testing.assert_allclose([float(loss) for loss in again.losses], want, rtol=1e-6)
