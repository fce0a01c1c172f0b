import numpy as np
import pytest
import tensorflow as tf

from keras_robust._keras import LEGACY, keras
from keras_robust.compress._flatten import check_flat, clone, flatten

pytestmark = pytest.mark.skipif(not LEGACY, reason="compress needs tf_keras")
layers = keras.layers


def nested():
    """A functional model that holds a functional one (twice), which holds a Sequential one."""
    keras.utils.set_random_seed(2)
    head = keras.Sequential(
        [layers.Dense(6, input_shape=(6,), name="dense"), layers.ReLU()], name="head"
    )
    a = keras.Input((6,), name="a")
    inner = keras.Model(a, layers.BatchNormalization()(head(a)) + a, name="inner")
    b = keras.Input((6,), name="b")
    x = inner(inner(layers.Dense(6, name="dense")(b)))
    model = keras.Model(b, layers.Dense(3, name="logits")(x))
    model.set_weights([np.random.default_rng(0).uniform(0.1, 1, w.shape) for w in model.weights])
    return model


def test_nested_models_give_the_same_outputs_in_both_modes(rng):
    model = nested()
    flat = flatten(model)
    assert not any(isinstance(layer, keras.Model) for layer in flat.layers)
    x = rng.normal(size=(5, 6)).astype("float32")
    assert np.array_equal(flat(x), model(x))
    assert np.array_equal(flat(x, training=True), model(x, training=True))


def test_shared_weights_stay_shared_and_are_copies():
    model = nested()
    flat = flatten(model)
    assert len(flat.weights) == len(model.weights)
    assert not {id(w) for w in flat.weights} & {id(w) for w in model.weights}
    before = model.get_weights()
    flat.set_weights([w + 1 for w in flat.get_weights()])
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_names_that_clash_get_the_inner_models_name():
    names = [layer.name for layer in flatten(nested()).layers]
    assert len(set(names)) == len(names)
    assert "dense" in names and "inner_head_dense" in names


def test_shared_layer_without_weights_becomes_one_a_call():
    relu = layers.ReLU(name="relu")
    inputs = keras.Input((4,))
    x = relu(layers.Dense(4)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(relu(layers.Dense(4)(x))))
    assert [layer.name for layer in flatten(model).layers if "relu" in layer.name] == [
        "relu",
        "relu_1",
    ]


def test_inner_model_called_with_training_false_keeps_its_statistics(rng):
    a = keras.Input((3,))
    inner = keras.Model(a, layers.BatchNormalization()(a))
    b = keras.Input((3,))
    model = keras.Model(b, layers.Dense(2)(inner(b, training=False)))
    flat = flatten(model)
    x = rng.normal(size=(8, 3)).astype("float32") + 5
    assert np.array_equal(flat(x, training=True), flat(x, training=False))


def test_sequential_and_operators(rng):
    inputs = keras.Input((4,))
    x = layers.Dense(4)(inputs)
    functional = keras.Model(inputs, layers.Dense(2)(tf.nn.relu(x) * 2.0 + inputs))
    sequential = keras.Sequential([layers.Dense(4, input_shape=(4,)), layers.Dense(2)])
    x = rng.normal(size=(3, 4)).astype("float32")
    for model in (functional, sequential):
        assert np.array_equal(flatten(model)(x), model(x))


def test_clone_shares_nothing(rng):
    model = flatten(nested())
    copy = clone(model)
    x = rng.normal(size=(2, 6)).astype("float32")
    assert np.array_equal(copy(x), model(x))
    assert not {id(w) for w in copy.weights} & {id(w) for w in model.weights}


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


class NoConfig(layers.Layer):
    def __init__(self, units):
        super().__init__()
        self.units = units

    def get_config(self):
        return super().get_config()

    def call(self, x):
        return x * self.units


def test_each_refusal_names_what_it_found():
    with pytest.raises(TypeError, match="must be a Keras model, got function"):
        check_flat(lambda x: x)
    with pytest.raises(ValueError, match=r"subclassed model \(Own\).*functional model"):
        check_flat(Own())
    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match=r"inside `model` is a subclassed model \(Own\)"):
        check_flat(keras.Model(inputs, Own()(inputs)))
    with pytest.raises(ValueError, match="Sequential model that is not built"):
        check_flat(keras.Sequential([layers.Dense(3)]))
    with pytest.raises(ValueError, match="got 1 inputs and 2 outputs"):
        check_flat(keras.Model(inputs, [layers.Dense(2)(inputs), layers.Dense(2)(inputs)]))
    with pytest.raises(ValueError, match=r"\(NoConfig\).*get_config"):
        flatten(keras.Model(inputs, NoConfig(3)(inputs)))


def test_wrapped_models_are_refused():
    from keras_robust.compress._tfmot import tfmot

    model = keras.Sequential([layers.Dense(3, input_shape=(4,), name="d")])
    wrapped = tfmot().sparsity.keras.prune_low_magnitude(model)
    with pytest.raises(ValueError, match="already wrapped by TF-MOT.*PruneLowMagnitude"):
        check_flat(wrapped)
