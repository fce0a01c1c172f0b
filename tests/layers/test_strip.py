"""Models without their virtual layers, and files in which nothing of these is left."""

import random

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.layers import LowRankVirtual, strip_virtual


def trained(model, count=8, seed=0):
    """`model` after a step, with images that it can take."""
    rng = np.random.default_rng(seed)
    shape = model.input_shape[1:]
    x = rng.uniform(size=(count, *shape)).astype("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss)
    model.train_on_batch(x, np.arange(count) % 3)
    return x


def functional():
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(4, 3)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = y = LowRankVirtual(5, name="lr_1")(x)
    x = keras.layers.Conv2D(4, 3, padding="same")(x)
    x = keras.layers.Add()([x, y])
    x = keras.layers.Flatten()(x)
    x = LowRankVirtual(3, name="lr_2")(x)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dropout(0.5)(x)), name="net")


def sequential():
    layers = [keras.layers.Flatten(), LowRankVirtual(3), keras.layers.Dense(3), LowRankVirtual(2)]
    return keras.Sequential([keras.Input((6, 6, 1)), *layers], name="net")


def nested():
    inner = functional()
    body = keras.Model(inner.input, inner.layers[-2].output, name="body")
    inputs = keras.Input((6, 6, 1))
    head = keras.Sequential([keras.Input((64,)), LowRankVirtual(3), keras.layers.Dense(3)])
    return keras.Model(inputs, head(body(inputs)))


def shared():
    virtual, dense = LowRankVirtual(2), keras.layers.Dense(4)
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Flatten()(inputs)
    one = virtual(dense(x))
    two = virtual(dense(keras.layers.ReLU()(x)))
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Concatenate()([one, two])))


@pytest.mark.parametrize("build", [functional, sequential, nested, shared])
def test_outputs_are_the_same_bit_for_bit(build):
    model = build()
    x = trained(model)
    model.layers[1].trainable = False
    before, names = model.get_weights(), [layer.name for layer in model.layers]
    stripped = strip_virtual(model)
    left = [layer for layer in stripped._flatten_layers() if isinstance(layer, LowRankVirtual)]
    assert not left and stripped.name == model.name
    np.testing.assert_array_equal(stripped(x, training=False), model(x, training=False))
    assert len(stripped.trainable_weights) == len(model.trainable_weights)
    # The model itself is left alone, and shares nothing with the copy.
    for weight in stripped.weights:
        weight.assign(tf.zeros_like(weight))
    assert [layer.name for layer in model.layers] == names
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_model_without_any_is_copied():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    stripped = strip_virtual(model)
    x = np.ones((2, 4), "float32")
    np.testing.assert_array_equal(stripped(x), model(x))
    assert stripped is not model and stripped.layers[0] is not model.layers[0]


def test_bare_operations_stay():
    inputs = keras.Input((4,))
    x = LowRankVirtual(2)(keras.layers.Dense(4)(inputs)) * 2.0 + 1.0
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_array_equal(strip_virtual(model)(x), model(x))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="own")
        self.virtual, self.dense = LowRankVirtual(2, name="lr"), keras.layers.Dense(3)

    def call(self, x):
        return self.dense(self.virtual(x))


def test_what_cannot_be_rebuilt_is_named():
    model = Subclassed()
    model(np.ones((2, 4), "float32"))
    with pytest.raises(ValueError, match=r"'own' \(Subclassed\) is subclassed .*\['lr'\]"):
        strip_virtual(model)
    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match=r"'own' \(Subclassed\) is subclassed"):
        strip_virtual(keras.Model(inputs, Subclassed()(inputs)))
    sequence = keras.Input((5, 4))
    wrapped = keras.layers.TimeDistributed(LowRankVirtual(2, name="lr"))(sequence)
    with pytest.raises(ValueError, match="'lr' sits inside layer 'time_distributed.*Time"):
        strip_virtual(keras.Model(sequence, wrapped))
    with pytest.raises(ValueError, match="no weights yet"):
        strip_virtual(keras.Sequential([LowRankVirtual(2, name="lr"), keras.layers.Dense(3)]))
    with pytest.raises(TypeError, match="must be a Keras model, got function"):
        strip_virtual(lambda x: x)


def wide():
    """So wide at the virtual layer that its W would be most of any file."""
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Flatten()(inputs)
    x = LowRankVirtual(4)(keras.layers.Dense(300)(x))
    return keras.Model(inputs, keras.layers.Dense(3)(x))


@pytest.mark.parametrize("kind", ["tflite", "serving"])
def test_files_hold_nothing_of_it(kind, tmp_path):
    model = wide()
    x = trained(model)
    written = []
    for name, each in (("with", model), ("without", strip_virtual(model))):
        if kind == "tflite":
            written.append(kr.export.tflite(each, tmp_path / f"{name}.tflite", check=x))
        else:
            written.append(kr.export.serving(each, tmp_path / name, check=x))
    with_it, without = (each.bytes for each in written)
    assert abs(with_it - without) < 2000 and with_it < 120_000 < 300 * 300 * 4
    if kind == "serving":
        loaded = tf.saved_model.load(str(tmp_path / "with" / "1"))
        variables = tf.train.list_variables(str(tmp_path / "with" / "1" / "variables/variables"))
        assert (300, 300) not in {tuple(shape) for _, shape in variables}
        graph = loaded.signatures["serving_default"].graph
        outputs = [out for op in graph.get_operations() for out in op.outputs]
        assert (300, 300) not in {tuple(out.shape) for out in outputs if out.shape.rank}
    else:
        interpreter = tf.lite.Interpreter(str(tmp_path / "with.tflite"))
        shapes = {tuple(tensor["shape"]) for tensor in interpreter.get_tensor_details()}
        assert (300, 300) not in shapes and (300,) in {s[-1:] for s in shapes}


def test_layers_frozen_inside_nested_models_stay_frozen():
    plain = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(4, name="p1"), keras.layers.Dense(4, name="p2")]
    )
    layers = [keras.layers.Dense(4, name="v1"), LowRankVirtual(2), keras.layers.Dense(4, name="v2")]
    virtual = keras.Sequential([keras.Input((4,)), *layers])
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3, name="out")(virtual(plain(inputs))))
    frozen = {"p1", "v2"}
    for inner in (plain, virtual):
        for layer in inner.layers:
            layer.trainable = layer.name not in frozen
    copy = strip_virtual(model)
    found = {layer.name: layer.trainable for layer in copy._flatten_layers()}
    assert {name: found[name] for name in ("p1", "p2", "v1", "v2", "out")} == {
        "p1": False, "p2": True, "v1": True, "v2": False, "out": True,
    }  # fmt: skip
    assert len(copy.trainable_weights) == 6
    assert len(model.trainable_weights) == 6


def test_the_callers_random_numbers_stay():
    model, state = functional(), random.getstate()
    strip_virtual(model)
    assert random.getstate() == state
