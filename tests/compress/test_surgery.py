"""Models without some units compute what they did with these units silenced."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.compress._neurons import dead_units, groups_of, remove_dead, spare_last
from keras_robust.compress._surgery import without
from keras_robust.compress._surgery_units import Units

layers = keras.layers
SHAPE = (8, 8, 3)


def conv(filters, name, size=3, **settings):
    return layers.Conv2D(filters, size, padding="same", name=name, **settings)


def vgg():
    return keras.Sequential(
        [keras.Input(SHAPE), layers.Rescaling(2.0, -1.0), conv(6, "a", activation="relu"),
         conv(8, "b", use_bias=False), layers.BatchNormalization(name="b_bn"), layers.ReLU(),
         layers.MaxPooling2D(), layers.Dropout(0.3), layers.Flatten(),
         layers.Dense(10, "relu", name="c"), layers.Dense(5, name="logits")]
    )  # fmt: skip


def mobilenet():
    inputs = keras.Input(SHAPE)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(conv(6, "stem")(inputs)))
    for i, stride in enumerate((1, 2)):
        y = layers.ReLU(6.0)(layers.BatchNormalization()(conv(12, f"expand{i}", 1)(x)))
        y = layers.ZeroPadding2D()(y)
        y = layers.DepthwiseConv2D(3, stride, depth_multiplier=i + 1, name=f"depth{i}")(y)
        y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(conv(6, f"project{i}", 1)(y))
        x = layers.Add()([x, y]) if stride == 1 else y
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = conv(3, "squeeze", 1, activation="relu")(gate)
    x = layers.Multiply()([x, conv(6, "excite", 1, activation="sigmoid")(gate)])
    x = layers.SeparableConv2D(7, 3, name="separable", activation="relu")(x)
    x = layers.Reshape((1, 1, 7))(layers.GlobalAveragePooling2D()(x))
    x = layers.Flatten()(conv(9, "head", 1, activation="relu")(x))
    return keras.Model(inputs, layers.Dense(5, name="logits")(x))


def dense_block():
    inputs = keras.Input(SHAPE)
    x = conv(4, "stem")(inputs)
    for i in range(2):
        y = layers.ReLU()(layers.BatchNormalization(name=f"bn{i}")(x))
        x = layers.Concatenate()([x, conv(3, f"grow{i}", use_bias=False)(y)])
    return keras.Model(inputs, layers.Dense(5)(layers.GlobalMaxPooling2D()(x)))


def nested():
    a = keras.Input(SHAPE)
    body = keras.Model(a, layers.ReLU()(conv(6, "conv")(a)), name="body")
    b = keras.Input(SHAPE)
    x = keras.Sequential([keras.Input(SHAPE), conv(3, "conv")], name="front")(b)
    x = layers.GlobalAveragePooling2D()(body(layers.Activation("relu")(x)))
    return keras.Model(b, layers.Dense(4)(x))


def resnet():
    return kr.zoo.resnet18(SHAPE)


def randomize(model, seed=0):
    generator = np.random.default_rng(seed)
    for layer in layers_of(model):
        weights = []
        for w in layer.get_weights():
            if w.ndim == 1:
                weights.append(generator.uniform(0.1, 1.0, w.shape))
            else:
                scale = (2 / np.prod(w.shape[:-1])) ** 0.5
                weights.append(scale * generator.normal(size=w.shape))
        layer.set_weights(weights)


def layers_of(model):
    found = model._flatten_layers(include_self=False)
    return [layer for layer in found if layer.weights and not isinstance(layer, keras.Model)]


def silence(units, gone):
    """Sets the units to zero where they start: after the last bias and BatchNormalization."""
    for use in units.uses.values():
        layer, weights = use.call.layer, use.call.layer.get_weights()
        silent = np.isin(use.outputs, list(gone))
        if use.kind == "depthwise":
            weights[0].reshape(*weights[0].shape[:-2], -1)[..., silent] = 0
        elif use.kind == "norm":
            weights[0][silent] = 0
        else:
            weights[-1 - bool(layer.use_bias)][..., silent] = 0
        if use.kind == "norm":
            weights[1][silent] = 0
        elif layer.use_bias:
            weights[-1][silent] = 0
        layer.set_weights(weights)


@pytest.mark.parametrize("build", [vgg, mobilenet, dense_block, nested, resnet])
def test_silent_units_go_without_a_trace(build, rng):
    model = build()
    randomize(model)
    units = Units(model)
    free = np.concatenate([group.units for group in groups_of(units)])
    chosen = set(free[rng.uniform(size=len(free)) < 0.4].tolist())
    gone = spare_last(units, chosen, np.zeros(units.count))
    silence(units, gone)
    assert gone <= dead_units(units)
    x = rng.uniform(size=(4, *SHAPE)).astype("float32")
    before, want = model.get_weights(), model(x).numpy()
    small = without(units, gone)
    scale = max(1.0, np.abs(want).max())
    np.testing.assert_allclose(small(x), want, atol=1e-5 * scale)
    assert small.count_params() < 0.85 * model.count_params()
    assert type(small).__name__ in ("Functional", "Sequential")
    assert isinstance(small, keras.Sequential) == isinstance(model, keras.Sequential)
    # The given model is as it was, and shares nothing.
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert not {id(w) for w in small.weights} & {id(w) for w in model.weights}
    if build is resnet:
        return  # Seconds, and nothing new.
    again = remove_dead(model)
    assert again.count_params() <= small.count_params()
    np.testing.assert_allclose(again(x), want, atol=1e-5 * scale)


def test_outputs_are_the_same_bit_for_bit_where_sums_are_exact(rng):
    """Whole numbers: no order of a sum changes it, so nothing else may either."""
    model = keras.Sequential(
        [keras.Input((4, 4, 2)), layers.Conv2D(6, 3, activation="relu", name="a"),
         layers.MaxPooling2D(), layers.Flatten(), layers.Dense(3)]
    )  # fmt: skip
    for layer in model.layers:
        layer.set_weights([rng.integers(-3, 4, w.shape) for w in layer.get_weights()])
    kernel, bias = model.get_layer("a").get_weights()
    kernel[..., ::2] = 0
    model.get_layer("a").set_weights([kernel, bias])
    small = remove_dead(model)
    assert small.get_layer("a").filters == 3
    x = rng.integers(-5, 6, (50, 4, 4, 2)).astype("float32")
    np.testing.assert_array_equal(small(x), model(x))


def test_a_filter_of_zeros_behind_a_shift_is_not_dead(rng):
    """Honest about BatchNormalization: its beta gives the unit a voice."""
    model = vgg()
    randomize(model)
    kernel = model.get_layer("b").get_weights()[0]
    kernel[..., :3] = 0
    model.get_layer("b").set_weights([kernel])
    x = rng.uniform(size=(4, *SHAPE)).astype("float32")
    # Dense follows, where nothing is padded: the voice goes into its bias.
    small = remove_dead(model)
    assert small.get_layer("b").filters == 5
    np.testing.assert_allclose(small(x), model(x), atol=1e-5)
    # A padded convolution follows, where the border tells zero from not.
    kernel, bias = model.get_layer("a").get_weights()
    kernel[..., :2] = 0
    model.get_layer("a").set_weights([kernel, bias])
    assert remove_dead(model).get_layer("a").filters == 6
    model.get_layer("a").set_weights([kernel, bias - 10 * (np.arange(6) < 2)])
    assert remove_dead(model).get_layer("a").filters == 4


def test_what_nobody_listens_to_is_dead_and_so_is_what_it_needed(rng):
    model = vgg()
    randomize(model)
    dense, bias = model.get_layer("c").get_weights()
    dense.reshape(16, 8, 10)[:, 2:] = 0
    model.get_layer("c").set_weights([dense, bias])
    kernel = model.get_layer("b").get_weights()[0]
    kernel[:, :, 1:, :2] = 0
    model.get_layer("b").set_weights([kernel])
    small = remove_dead(model)
    assert (small.get_layer("a").filters, small.get_layer("b").filters) == (1, 2)
    x = rng.uniform(size=(4, *SHAPE)).astype("float32")
    np.testing.assert_allclose(small(x), model(x), atol=1e-5)


def test_a_layer_that_is_all_dead_keeps_one_unit(rng):
    model = vgg()
    model.get_layer("a").set_weights([np.zeros((3, 3, 3, 6)), np.zeros(6)])
    small = remove_dead(model)
    assert small.get_layer("a").filters == 1
    x = rng.uniform(size=(2, *SHAPE)).astype("float32")
    np.testing.assert_allclose(small(x), model(x), atol=1e-6)


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 10**6))
def test_random_graphs(seed):
    """Any sequence of layers, with branches that are added, multiplied or put side by side."""
    generator = np.random.default_rng(seed)
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 2))
    x = conv(4, "first")(inputs)
    for step in range(5):
        choice = generator.integers(7)
        if choice == 0:
            x = layers.ReLU()(layers.BatchNormalization()(x))
        elif choice == 1:
            x = layers.Add()([x, conv(x.shape[-1], f"conv{step}", activation="tanh")(x)])
        elif choice == 2:
            x = layers.Concatenate()([conv(3, f"conv{step}")(x), x])
        elif choice == 3:
            x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)
        elif choice == 4:
            x = layers.Multiply()([x, layers.Dense(x.shape[-1], "relu", name=f"dense{step}")(x)])
        elif choice == 5:
            x = layers.SeparableConv2D(5, 2, padding="same", name=f"conv{step}")(x)
        else:
            x = conv(5, f"conv{step}", use_bias=False)(x)
    x = layers.Flatten()(x) if generator.integers(2) else layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    randomize(model, seed)
    units = Units(model)
    free = np.concatenate([group.units for group in groups_of(units)])
    chosen = set(free[generator.uniform(size=len(free)) < 0.4].tolist())
    gone = spare_last(units, chosen, np.zeros(units.count))
    silence(units, gone)
    values = generator.uniform(size=(3, 6, 6, 2)).astype("float32")
    want = model(values).numpy()
    atol = 2e-5 * max(1.0, np.abs(want).max())
    small = without(units, gone)
    np.testing.assert_allclose(small(values), want, atol=atol)
    np.testing.assert_allclose(remove_dead(model)(values), want, atol=atol)


def test_what_is_trainable_compiled_and_mixed_stays_so(rng):
    model = vgg()
    model.get_layer("a").trainable = False
    small = remove_dead(model)
    assert not small.get_layer("a").trainable and small.get_layer("b").trainable
    a = keras.Input((4,))
    hidden = layers.Dense(4, "relu", dtype="mixed_float16")(a)
    model = keras.Model(a, layers.Dense(2, dtype="float32")(hidden))
    small = kr.compress.PruneNeurons(0.5, score="l2").apply(model)
    assert small.layers[1].units == 2 and small.layers[1].compute_dtype == "float16"


class NoConfig(keras.layers.Layer):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def get_config(self):
        return super().get_config()

    def call(self, x):
        return x * self.factor


def test_a_layer_without_a_config_is_named():
    inputs = keras.Input((4,))
    x = layers.Dense(3)(NoConfig(2.0)(layers.Dense(3)(inputs)))
    with pytest.raises(ValueError, match=r"\(NoConfig\) cannot be rebuilt from its get_config"):
        remove_dead(keras.Model(inputs, x))


def test_shared_models_and_operators(rng):
    """What is called twice stays one layer; a bare operation is made again."""
    a = keras.Input((6,))
    hidden = layers.Dense(5, "relu", name="hidden")(a)
    inner = keras.Model(a, layers.Add()([a, layers.Dense(6, name="out")(hidden)]))
    b = keras.Input((3,))
    x = inner(inner(layers.Dense(6, "relu", name="first")(b))) * 2.0
    x = layers.Dense(4, "relu", name="last")(x)
    model = keras.Model(b, layers.Dense(2)(x))
    randomize(model)
    kernel, bias = hidden_layer(model, "hidden").get_weights()
    kernel[:, :2], bias[:2] = 0, 0
    hidden_layer(model, "hidden").set_weights([kernel, bias])
    small = remove_dead(model)
    values = rng.uniform(size=(5, 3)).astype("float32")
    np.testing.assert_allclose(small(values), model(values), rtol=1e-5)
    sizes = {layer.name: layer.units for layer in layers_of(small)}
    assert sizes == {"first": 6, "hidden": 3, "out": 6, "last": 4, model.layers[-1].name: 2}
    halved = kr.compress.PruneNeurons(0.5, score="l2").apply(model)
    # The operator stands behind "first" and "out".
    assert [layer.units for layer in layers_of(halved)] == [6, 3, 6, 2, 2]


def hidden_layer(model, name):
    return next(layer for layer in layers_of(model) if layer.name == name)


def test_a_reshape_that_is_called_twice(rng):
    """One layer where both calls make one shape, two where they lose other units."""
    reshape, outer = layers.Reshape((1, 6), name="reshape"), layers.Dense(6, name="reshape_1")
    a, b = keras.Input((6,)), keras.Input((6,))
    inner = keras.Model(a, layers.Flatten()(reshape(layers.Dense(6, name="inner")(a))))
    same = keras.Model(b, layers.Dense(2)(inner(inner(outer(b)))))
    x = rng.normal(size=(4, 6)).astype("float32")
    small = remove_dead(same)
    np.testing.assert_allclose(small(x), same(x), rtol=1e-5, atol=1e-6)
    assert sum(isinstance(layer, layers.Reshape) for layer in small.layers) == 1

    y = layers.Dense(6, "relu", name="first")(b)
    z = layers.Flatten()(reshape(y))
    z = layers.Flatten()(reshape(layers.Dense(6, "relu", name="reshape_1")(z)))
    model = keras.Model(b, layers.Dense(2)(z))
    units = Units(model)
    gone = units.makers()["first"].outputs[:2]
    small = without(units, set(gone.tolist()))
    assert {layer.target_shape for layer in small.layers if hasattr(layer, "target_shape")} == {
        (1, 4),
        (1, 6),
    }
    silence(units, gone)
    np.testing.assert_allclose(small(x), model(x), rtol=1e-5, atol=1e-6)


def test_what_is_frozen_inside_a_wrapper_stays_so():
    inner = layers.Dense(4, name="inner")
    wrapper = layers.TimeDistributed(inner, name="wrapper")
    model = keras.Sequential([keras.Input((3, 2)), wrapper, layers.Dense(3), layers.Dense(2)])
    inner.trainable = False
    copy = remove_dead(model)
    assert copy.get_layer("wrapper").trainable and not copy.get_layer("wrapper").layer.trainable
    assert len(copy.trainable_weights) == len(model.trainable_weights) == 4
