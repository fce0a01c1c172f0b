"""MobileNet, SqueezeNet and ShuffleNet: sizes of the papers' nets, their parts, and training."""

import numpy as np
import pytest

import keras_robust as kr
from keras_robust import zoo
from keras_robust._keras import keras

NETS = ["mobilenet", "squeezenet", "shufflenet"]


def trainable(model):
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def normalised(model):
    return sum(layer.gamma.shape[0] for layer in model.layers if hasattr(layer, "gamma"))


# ShuffleNet with few of its units.
FEW = {"mobilenet": {}, "squeezenet": {}, "shufflenet": {"units": (2,)}}


@pytest.mark.once
@pytest.mark.parametrize("name", NETS)
def test_sizes_of_the_papers_nets(name):
    model = zoo.build(name, input_shape=(65, 65, 3), classes=1000)
    known = {
        "mobilenet": 4_231_976,  # keras.applications
        # torchvision's squeezenet1_1, whose convolutions have a bias for our two numbers a channel.
        "squeezenet": 1_235_496 + normalised(model),
        "shufflenet": 1_865_728,  # pytorchcv, as below
    }
    assert trainable(model) == known[name]


@pytest.mark.parametrize("name", NETS)
def test_width_shape_and_seed(name):
    shape = {"input_shape": (28, 28, 1), **FEW[name]}
    small = zoo.build(name, **shape, width=0.25, seed=5)
    assert small.input_shape == (None, 28, 28, 1) and small.output_shape == (None, 10)
    for a, b in zip(
        small.get_weights(), zoo.build(name, **shape, width=0.25, seed=5).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    kernels = [w for w in small.get_weights() if w.ndim > 1]
    for a, b in zip(kernels, kernels[1:], strict=False):  # no two layers start alike
        count = min(a.size, b.size, 100)
        assert np.abs(np.corrcoef(a.flat[:count], b.flat[:count])[0, 1]) < 0.9
    stem = small.get_layer("stem_conv").filters
    assert stem == {"mobilenet": 8, "squeezenet": 16, "shufflenet": 24}[name]
    assert (
        small.get_layer("pool").input.shape[-1]
        == {
            "mobilenet": 256,
            "squeezenet": 128,
            "shufflenet": 60,
        }[name]
    )


def test_a_shuffle_sends_each_group_to_all_groups():
    model = zoo.shufflenet((8, 8, 3), width=0.25, groups=4, units=(1, 1))
    given = model.get_layer("unit2_1_in_relu").output
    shuffled = keras.Model(given, model.get_layer("unit2_1_join").output)
    channels = given.shape[-1]
    x = np.broadcast_to(np.arange(channels, dtype="float32"), (1, *given.shape[1:]))
    found = np.asarray(shuffled(x))[0, 0, 0]
    np.testing.assert_array_equal(found, np.arange(channels).reshape(4, -1).T.ravel())
    assert {tuple(part // (channels // 4)) for part in found.reshape(-1, 4)} == {(0, 1, 2, 3)}


def test_a_grouped_convolution_sees_its_group_only():
    model = zoo.shufflenet((8, 8, 3), width=0.25, groups=2, units=(2,))
    conv = model.get_layer("unit1_2_in_conv")
    x = np.random.default_rng(0).random((1, 2, 2, conv.input.shape[-1])).astype("float32")
    half, filters = x.shape[-1] // 2, conv.filters // 2
    changed = x.copy()
    changed[..., half:] = 0
    difference = np.abs(conv(x) - conv(changed)).max(axis=(0, 1, 2))
    assert np.all(difference[:filters] == 0) and np.all(difference[filters:] > 0)


def test_bypasses_add_what_goes_into_a_module():
    model = zoo.squeezenet((8, 8, 3), width=0.125, bypass=True)
    assert [layer.name for layer in model.layers if "add" in layer.name] == [
        f"fire{i}_add" for i in (2, 4, 6, 8)
    ]
    parts = [model.get_layer(n).output for n in ("fire1_concat", "fire2_concat", "fire2_add")]
    module = keras.Model(model.input, parts)
    before, branch, added = module(np.random.default_rng(0).random((1, 8, 8, 3), np.float32))
    np.testing.assert_allclose(added, before + branch, atol=1e-6)


@pytest.mark.parametrize("name", NETS)
def test_it_trains_adversarially(name):
    keras.utils.set_random_seed(0)
    model = zoo.build(name, input_shape=(4, 4, 1), classes=3, width=0.125, **FEW[name])
    generator = np.random.default_rng(0)
    y = np.arange(16) % 3
    x = (generator.random((16, 4, 4, 1)) * 0.4 + 0.25 * y[:, None, None, None]).astype("float32")
    before = model.get_weights()
    trainer = kr.AdversarialTraining(model, kr.attacks.FGSM(eps=0.02))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Tracing takes seconds; only what the grouped convolutions do in a graph is worth them.
    eager = name != "shufflenet"
    trainer.compile(keras.optimizers.SGD(0.01), loss, jit_compile=False, run_eagerly=eager)
    trainer.fit(x, y, batch_size=8, verbose=0)
    moved = [np.abs(a - b).max() for a, b in zip(before, model.get_weights(), strict=True)]
    assert min(moved) > 0 and np.all(np.isfinite(model(x)))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("mobilenet", {"width": 0}, "`width` must be a number > 0, got 0"),
        ("squeezenet", {"width": "1"}, "`width` must be a number > 0, got '1'"),
        ("squeezenet", {"bypass": 1}, "`bypass` must be True or False, got 1"),
        ("shufflenet", {"units": (2, 0)}, r"`units` must be whole numbers >= 1, got \(2, 0\)"),
        ("shufflenet", {"groups": 5}, r"`groups` must be one of \(1, 2, 3, 4, 8\), got 5"),
    ],
)
def test_wrong_arguments(name, settings, message):
    with pytest.raises(ValueError, match=message):
        zoo.build(name, **settings)
