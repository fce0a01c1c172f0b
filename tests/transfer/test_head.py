"""Networks cut after a layer, with a new head."""

import numpy as np
import pytest

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.transfer import embeddings, parameters, replace_head


@pytest.fixture
def model():
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.ReLU(name="body")(x)
    x = keras.layers.Conv2D(16, 3, name="late")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name="net")


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def test_the_head_is_linear_in_the_layer(model, blobs):
    x, _ = blobs(5)
    new = replace_head(model, "body", classes=4, seed=1)
    kernel, bias = new.layers[-1].get_weights()
    assert kernel.shape == (4 * 4 * 4, 4) and not bias.any()
    expected = embeddings(model, "body", x) @ kernel
    np.testing.assert_allclose(new.predict(x, verbose=0), expected, atol=1e-5)


def test_parameters_are_counted_by_hand(model):
    conv, norm, late, logits = 4 * 9 + 4, 4 * 4, 16 * 4 * 9 + 16, 16 * 3 + 3
    assert parameters(model) == (conv + norm + late + logits, conv + 8 + late + logits, 8)
    frozen = replace_head(model, "body", 3)
    assert parameters(frozen) == (conv + norm + 64 * 3 + 3, 64 * 3 + 3, conv + norm)
    free = replace_head(model, "body", 3, hidden=5, freeze=False)
    head = 64 * 5 + 5 + 5 * 3 + 3
    assert parameters(free) == (conv + norm + head, conv + 8 + head, 8)
    assert parameters(replace_head(model, "body", 3, hidden=(5, 4))).trainable == (
        64 * 5 + 5 + 5 * 4 + 4 + 4 * 3 + 3
    )


@pytest.mark.parametrize("freeze", [True, False])
def test_fit_trains_the_head_and_the_users_model_stays(model, blobs, freeze):
    x, y = blobs(96)
    before = [weight.numpy() for weight in model.weights]
    new = replace_head(model, "body", 3, freeze=freeze)
    body = [weight.numpy() for weight in new.get_layer("norm").weights]
    new.compile(keras.optimizers.Adam(0.02), LOSS, metrics=["accuracy"])
    history = new.fit(x, y, epochs=6, verbose=0)
    assert history.history["accuracy"][-1] > 0.9
    moved = [
        not np.array_equal(old, weight.numpy())
        for old, weight in zip(body, new.get_layer("norm").weights, strict=True)
    ]
    # Frozen, batch statistics stay too.
    assert moved == [not freeze] * 4
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, weight.numpy())
    assert all(layer.trainable for layer in model.layers)


def test_a_frozen_model_thaws_for_full_fine_tuning(model):
    model.trainable = False
    assert parameters(replace_head(model, "body", 3, freeze=False)).frozen == 8
    assert not model.trainable


def test_the_seed_decides_the_head(model):
    kernels = [
        replace_head(model, "body", 3, hidden=4, seed=s).layers[-1].get_weights()[0]
        for s in (1, 1, 2)
    ]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.allclose(kernels[0], kernels[2])


def test_sequential_models_and_used_names(rng):
    layers = [
        keras.layers.Dense(8, name="head_logits"),
        keras.layers.Dense(6, name="head_flatten"),
        keras.layers.Dense(2),
    ]
    model = keras.Sequential([keras.Input((4,)), *layers])
    new = replace_head(model, "head_flatten", 5)
    names = [layer.name for layer in new.layers]
    assert len(set(names)) == len(names) and new.output_shape == (None, 5)
    again = replace_head(new, names[-1], 2)
    assert again.output_shape == (None, 2)


def test_it_is_saved_and_exported_smaller(model, blobs, tmp_path):
    x, _ = blobs(24)
    new = replace_head(model, "body", 3)
    new.save(tmp_path / "new.keras")
    again = keras.models.load_model(tmp_path / "new.keras")
    np.testing.assert_allclose(again.predict(x, verbose=0), new.predict(x, verbose=0), atol=1e-6)
    whole = kr.export.tflite(model, tmp_path / "whole.tflite", check=x)
    cut = kr.export.tflite(new, tmp_path / "cut.tflite", check=x)
    assert cut.bytes < whole.bytes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 1}, "`classes` must be a whole number >= 2"),
        ({"hidden": 0}, "`hidden` must be a whole number >= 1"),
        ({"hidden": (3, 2.5)}, "`hidden` must be a whole number >= 1"),
        ({"layer": "nothing"}, "'nothing' is no layer"),
    ],
)
def test_wrong_input_says_what_to_do(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        replace_head(model, **{"layer": "body", "classes": 3, **arguments})


def test_open_shapes_are_refused():
    inputs = keras.Input((None, None, 1))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 1, name="map")(inputs))
    with pytest.raises(ValueError, match="has the open shape"):
        replace_head(model, "map", 2)


@pytest.mark.parametrize("layer", ["body", "virtual"])
def test_virtual_layers_stay_behind(blobs, layer):
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(4, 3, name="body")(inputs)
    x = kr.layers.LowRankVirtual(3, name="virtual")(x)
    x = keras.layers.Flatten()(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    new = replace_head(model, layer, 2, freeze=False)
    assert parameters(new) == (40 + 64 * 2 + 2, 40 + 64 * 2 + 2, 0)
    images, y = blobs(8)
    new.compile("sgd", LOSS)
    assert list(new.fit(images, y % 2, verbose=0).history) == ["loss"]
