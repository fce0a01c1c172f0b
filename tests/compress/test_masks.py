"""Zeros that stay, in either Keras, whatever the optimizer remembers."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.compress import keep_zeros
from keras_robust.compress._masks import (
    copy_of,
    find_kernels,
    fresh_copy,
    masks_of,
    put_masks,
    value_of,
)

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def kernels_of(model):
    return {name: value_of(variable) for name, variable in find_kernels(model).items()}


@pytest.mark.parametrize(
    ("optimizer", "jit"),
    [
        (lambda: keras.optimizers.Adam(0.01), False),
        (lambda: keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=1e-2), True),
    ],
)
def test_no_weight_comes_back(cnn, blobs, optimizer, jit):
    model = cnn()
    trainer = kr.AdversarialTraining(model, kr.attacks.FGSM(eps=0.05))
    trainer.compile(optimizer(), LOSS, jit_compile=jit)
    x, y = blobs()
    trainer.fit(x, y, epochs=2, verbose=0)  # The optimizer gathers momentum for every weight.
    start = kernels_of(model)
    masks = {name: np.abs(value) > np.median(np.abs(value)) for name, value in start.items()}
    put_masks(model, masks)
    # Traced anew: a constraint is part of the step.
    trainer.make_train_function(force=True)
    trainer.fit(x, y, epochs=2, verbose=0)
    for name, value in kernels_of(model).items():
        np.testing.assert_array_equal(value != 0, masks[name])
        assert np.abs(value - start[name])[masks[name]].max() > 1e-3
    np.testing.assert_array_equal(masks_of(model)[name], masks[name])


def test_keep_zeros_copies_and_composes_with_a_constraint_of_the_user(blobs):
    layers = [keras.Input((36,)), keras.layers.Dense(3, kernel_constraint="max_norm", name="out")]
    model = keras.Sequential(layers)
    kernel = np.linspace(-3, 3, 108).reshape(36, 3).astype("float32")
    kernel[::2] = 0
    model.set_weights([kernel, np.zeros(3, "float32")])
    masked = keep_zeros(model)
    masked.compile(keras.optimizers.SGD(0.1), LOSS)
    x, y = blobs()
    masked.fit(x.reshape(-1, 36), y, verbose=0)
    found = kernels_of(masked)["out"]
    assert not found[::2].any() and found[1::2].all()
    assert np.linalg.norm(found, axis=0).max() <= 2 + 1e-5
    np.testing.assert_array_equal(kernels_of(model)["out"], kernel)
    assert not masks_of(model) and not masks_of(copy_of(masked))


@pytest.mark.parametrize("layers", [["out"], lambda layer: layer.name == "out"])
def test_zeros_of_chosen_layers_alone_stay(blobs, layers):
    dense = keras.layers.Dense
    model = keras.Sequential([keras.Input((36,)), dense(4, name="hidden"), dense(3, name="out")])
    first, bias, second, last = model.get_weights()
    first[:, ::2], second[:, 0] = 0, 0
    model.set_weights([first, bias, second, last])
    masked = keep_zeros(model, layers)
    masked.compile(keras.optimizers.SGD(0.1), LOSS)
    x, y = blobs()
    masked.fit(x.reshape(-1, 36), y, verbose=0)
    found = kernels_of(masked)
    assert not found["out"][:, 0].any() and found["hidden"].any(axis=0).all()
    assert list(masks_of(masked)) == ["out"]


def test_a_fresh_copy_draws_anew_and_repeats(cnn):
    model = cnn(batch_norm=True)  # With seeds inside its initialisers.
    first, same, other = (kernels_of(fresh_copy(model, seed)) for seed in (1, 1, 2))
    for name, value in kernels_of(model).items():
        np.testing.assert_array_equal(first[name], same[name])
        assert np.abs(first[name] - value).max() > 0.05
        assert np.abs(first[name] - other[name]).max() > 0.05
    assert len({value.flat[0] for value in first.values()}) == len(first)


def test_a_fresh_copy_keeps_what_training_would_not_set():
    layers = keras.layers
    x = np.random.default_rng(0).normal(5.0, 2.0, (40, 6)).astype("float32")
    norm, features = layers.Normalization(name="norm"), layers.Dense(4, name="features")
    norm.adapt(x)
    inner = keras.Sequential([keras.Input((6,)), norm, features], name="inner")
    rest = [layers.BatchNormalization(name="batch"), layers.Dense(3, name="out")]
    model = keras.Sequential([keras.Input((6,)), inner, *rest])
    batch = model.get_layer("batch")
    batch.set_weights([weight + 0.5 for weight in batch.get_weights()])
    features.trainable = False
    fresh = fresh_copy(model, 1)
    old, new = model.get_layer("inner"), fresh.get_layer("inner")
    np.testing.assert_array_equal(new(x), old(x))
    assert np.abs(np.mean(new.get_layer("norm")(x), 0)).max() < 1e-3
    assert not new.get_layer("features").trainable
    # What training sets starts anew.
    assert np.ravel(fresh.get_layer("batch").get_weights()[2]).tolist() == [0.0] * 4
    assert np.abs(kernels_of(fresh)["out"] - kernels_of(model)["out"]).max() > 0.05


def test_kernels_inside_of_models_and_not_of_depthwise_layers():
    inner = keras.Sequential([keras.Input((4, 4, 2)), keras.layers.Conv2D(2, 3, name="inner")])
    layers = [keras.Input((6, 6, 1)), keras.layers.SeparableConv2D(2, 3, name="separable"), inner]
    layers += [keras.layers.DepthwiseConv2D(2), keras.layers.Flatten(), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    found = find_kernels(model)
    assert list(found)[:2] == ["separable", "inner"] and len(found) == 3
    assert tuple(found["separable"].shape) == (1, 1, 1, 2)
    assert list(find_kernels(model, lambda layer: layer.name == "inner")) == ["inner"]
    with pytest.raises(ValueError, match=r"names \['nowhere'\].*'inner'"):
        find_kernels(model, ["nowhere"])
    with pytest.raises(ValueError, match="no layer to prune"):
        find_kernels(model, lambda layer: False)


def test_kernels_of_transposed_convolutions():
    layers = [keras.Input((6, 2)), keras.layers.Conv1DTranspose(3, 2, name="up")]
    model = keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(2, name="out")])
    assert list(find_kernels(model)) == ["up", "out"]


def test_errors(cnn):
    with pytest.raises(ValueError, match=r"mask of layer .* has shape \(2,\)"):
        model = cnn()
        put_masks(model, {list(find_kernels(model))[0]: [1, 0]})
    with pytest.raises(TypeError, match="must be a Keras model, got int"):
        keep_zeros(3)

    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="functional model, got Own"):
        keep_zeros(Own())
    shared = [
        keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="d")], name=n) for n in "ab"
    ]
    with pytest.raises(ValueError, match="two layers called 'd'"):
        keep_zeros(keras.Sequential([keras.Input((2,)), *shared]))


def test_float32_masks_under_mixed_precision(blobs):
    policy = keras.mixed_precision if hasattr(keras, "mixed_precision") else keras
    layer = keras.layers.Dense(3, dtype=policy.Policy("mixed_float16"), name="out")
    model = keras.Sequential([keras.Input((36,)), layer])
    mask = np.arange(108).reshape(36, 3) % 3 > 0
    put_masks(model, {"out": mask})
    model.compile(keras.optimizers.Adam(0.01), LOSS)
    x, y = blobs()
    model.fit(x.reshape(-1, 36), y, verbose=0)
    kernel = find_kernels(model)["out"]
    assert tf.as_dtype(kernel.dtype) == tf.float32
    np.testing.assert_array_equal(value_of(kernel) != 0, mask)


def test_a_fresh_copy_draws_binary_weights_anew():
    own = [kr.layers.BinaryDense(6, name="a"), kr.layers.BinaryDense(3, name="b")]
    model = keras.Sequential([keras.Input((5,)), *own])
    first, same, other = (fresh_copy(model, seed).get_weights() for seed in (1, 1, 2))
    for place in (0, 2):
        np.testing.assert_array_equal(first[place], same[place])
        assert np.abs(first[place] - model.get_weights()[place]).max() > 0.01
        assert np.abs(first[place] - other[place]).max() > 0.01
