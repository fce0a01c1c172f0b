"""The built-in models: shapes, sizes known from papers and peers, seeds, errors."""

import numpy as np
import pytest
import tensorflow as tf

from keras_robust import zoo
from keras_robust._checks import check_logit_model
from keras_robust._keras import keras

SMALL = {"lenet_300_100", "lenet5", "small_cnn"}
# What TF-MOT quantizes by itself; Rescaling gets its QuantizeConfig from `compress`.
QUANTIZABLE = {
    *("InputLayer", "Rescaling", "Conv2D", "BatchNormalization", "ReLU", "Add", "Dense"),
    *("Flatten", "GlobalAveragePooling2D", "MaxPooling2D", "AveragePooling2D", "Concatenate"),
    *("DepthwiseConv2D", "Reshape", "Permute"),
}


def trainable(model):
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


@pytest.mark.parametrize("name", zoo.names())
def test_every_model_gives_logits_from_the_layers_that_tfmot_knows(name):
    model = zoo.build(name, classes=7)
    assert model is not None and isinstance(model, keras.Model) and model.name == name
    assert model.input_shape == ((None, 28, 28, 1) if name in SMALL else (None, 32, 32, 3))
    check_logit_model(model)
    logits = model(np.random.default_rng(0).random((2, *model.input_shape[1:]), np.float32))
    assert logits.shape == (2, 7) and logits.dtype == tf.float32
    assert np.all(np.isfinite(logits)) and np.std(logits) > 0
    assert {type(layer).__name__ for layer in model.layers} <= QUANTIZABLE
    names = [layer.name for layer in model.layers]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "name, settings, count",
    [
        ("lenet_300_100", {}, 266_610),  # Han et al. 2016: 267K
        ("lenet5", {}, 431_080),  # Han et al. 2016: 431K
        ("resnet18", {}, 11_173_962),  # the CIFAR form
        ("resnet18", {"input_shape": (65, 65, 3), "classes": 1000}, 11_689_512),  # torchvision
        ("resnet50", {"input_shape": (65, 65, 3), "classes": 1000}, 25_557_032),  # torchvision
        ("resnet50", {}, 23_520_842),  # the CIFAR form
        # torchvision's 16 convolutions and their normalisation, less 5,504 biases, and 5,130.
        ("vgg19", {}, 20_035_018),
    ],
)
def test_sizes_are_the_known_ones(name, settings, count):
    assert trainable(zoo.build(name, **settings)) == count


def test_vgg19_for_large_images_has_the_dense_layers_of_the_paper():
    layers = {layer.name: layer for layer in zoo.vgg19((65, 65, 1), classes=3).layers}
    assert layers["dense1"].kernel.shape == (2 * 2 * 512, 4096)
    assert layers["dense2"].kernel.shape == (4096, 4096)


@pytest.mark.parametrize("side, halvings", [(32, 3), (64, 3), (65, 5)])
def test_resnet_stem_follows_the_image_size(side, halvings):
    model = zoo.resnet18((side, side, 3))
    last = model.get_layer("block4_2_relu").output
    assert last.shape[1:] == (-(-side // 2**halvings),) * 2 + (512,)
    assert model.get_layer("stem_conv").kernel.shape == (*((3, 3) if side <= 64 else (7, 7)), 3, 64)


def test_resnet_blocks_add_their_shortcut():
    """With the last normalisation of each branch at zero a block is the ReLU of its shortcut."""
    model = zoo.resnet18((8, 8, 3), classes=3)
    for layer in model.layers:
        if layer.name.endswith("_b_bn"):
            layer.gamma.assign(tf.zeros_like(layer.gamma))
    outputs = [model.get_layer(n).output for n in ("stem_relu", "block1_1_relu", "block1_2_relu")]
    stem, *rest = keras.Model(model.input, outputs)(np.full((1, 8, 8, 3), 0.9, np.float32))
    for block in rest:
        np.testing.assert_allclose(block, stem, atol=1e-6)


@pytest.mark.parametrize("name", ["small_cnn", "lenet_300_100", "lenet5", "resnet18", "vgg19"])
def test_weights_follow_the_seed_alone(name):
    tf.random.set_seed(1)
    before = zoo.build(name, seed=5)
    tf.random.set_seed(2)
    same, other = zoo.build(name, seed=5), zoo.build(name, seed=6)
    for a, b, c in zip(before.get_weights(), same.get_weights(), other.get_weights()):
        np.testing.assert_array_equal(a, b)
        if a.ndim > 1:
            assert np.abs(a - c).max() > 0
    kernels = [w for w in before.get_weights() if w.ndim > 1]
    for a, b in zip(kernels, kernels[1:]):  # no two layers start alike
        count = min(a.size, b.size, 100)
        assert np.abs(np.corrcoef(a.flat[:count], b.flat[:count])[0, 1]) < 0.9


def test_the_global_seed_is_left_alone():
    draws = []
    for build in (False, True):
        keras.utils.set_random_seed(3)
        if build:
            zoo.small_cnn()
        draws.append((float(tf.random.uniform(())), np.random.rand()))
    assert draws[0] == draws[1]


@pytest.mark.parametrize(
    "mean, std", [(0.5, 0.5), (0.2, 0.3), ((0.1, 0.2, 0.3), 0.5), ((0.1, 0.2, 0.3), [1, 2, 4])]
)
def test_normalisation_is_inside(mean, std, tmp_path):
    model = zoo.small_cnn((8, 8, 3), mean=mean, std=std)
    x = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    inner = keras.Model(model.input, model.get_layer("normalize").output)
    expected = (x - np.float32(mean)) / np.float32(std)
    np.testing.assert_allclose(inner(x), expected, rtol=1e-5, atol=1e-6)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(x), model(x), rtol=1e-6, atol=1e-6)


def test_default_maps_to_minus_one_and_one():
    model = zoo.small_cnn()
    inner = keras.Model(model.input, model.get_layer("normalize").output)
    x = np.zeros((1, 28, 28, 1), np.float32)
    assert zoo.small_cnn(tf.zeros((2, 28, 28, 1)).shape[1:]).input_shape == model.input_shape
    assert np.all(inner(x) == -1) and np.all(inner(x + 1) == 1)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"input_shape": (28, 28)}, r"`input_shape` must be \(height, width, channels\), got"),
        ({"input_shape": (None, 28, 1)}, r"`input_shape` must be .*got \(None, 28, 1\)"),
        ({"input_shape": 28}, "`input_shape` must be .*got 28"),
        ({"classes": 1}, "`classes` must be a whole number >= 2, got 1"),
        ({"classes": 2.0}, "`classes` must be a whole number >= 2, got 2.0"),
        ({"seed": -1}, "`seed` must be a whole number >= 0, got -1"),
        ({"seed": None}, "`seed` must be a whole number >= 0, got None"),
        ({"mean": (0.5, 0.5)}, "`mean` must be one number, or one for each of the 1 channels"),
        ({"mean": float("nan")}, "`mean` must be finite, got nan"),
        ({"std": 0}, "`std` must be > 0, got 0.0"),
        ({"std": "a"}, "`std` must be one number, or one for each"),
    ],
)
def test_wrong_arguments(settings, message):
    with pytest.raises(ValueError, match=message):
        zoo.small_cnn(**settings)


@pytest.mark.parametrize("name, least", [("lenet5", 16), ("vgg19", 32)])
def test_too_small_images(name, least):
    assert zoo.build(name, input_shape=(least, least, 1)).output_shape == (None, 10)
    with pytest.raises(ValueError, match=f"`input_shape` of {name} must be at least {least} x"):
        zoo.build(name, input_shape=(least, least - 1, 1))


def test_unknown_name():
    with pytest.raises(ValueError, match="must be one of lenet5, .*got 'resnet19'. Did you mean"):
        zoo.build("resnet19")
    with pytest.raises(ValueError, match="must be one of lenet5, .*got None"):
        zoo.build(None)


def test_all_builders_have_a_name():
    assert set(zoo.names()) == set(zoo.__all__) - {"build", "names"}
    assert list(zoo.names()) == sorted(zoo.names())
