"""How far activations move, where it is known."""

import re

import numpy as np
import pytest

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.analysis import noise_stability, plot_stability


@pytest.fixture
def model():
    """Logits are twice the first two of four inputs; layer "half" is half of all of them."""
    inputs = keras.Input((4,))
    half = keras.layers.Rescaling(0.5, name="half")(inputs)
    dense = keras.layers.Dense(2, use_bias=False)
    built = keras.Model(inputs, dense(half))
    dense.set_weights([4.0 * np.eye(4)[:, :2].astype("float32")])
    return built


@pytest.fixture
def data(rng):
    x = rng.uniform(0.3, 0.7, size=(11, 4)).astype("float32")
    return x, np.argmax(x[:, :2], axis=1)


def test_a_linear_layer_moves_as_far_as_the_input(model, data):
    found = noise_stability(model, *data, "half", eps=(0.02, 0.1), batch_size=4)
    for kind in ("adversarial", "random"):
        np.testing.assert_allclose(found.moved[kind], found.size[kind], rtol=1e-4)
    np.testing.assert_allclose(found.size["random"], found.size["adversarial"], rtol=1e-3)
    # The attack moves two of the four entries to the corner.
    x = data[0].astype(np.float64)
    corner = 2 * 0.1**2 / np.square(x).sum(axis=1)
    assert found.size["adversarial"][1] >= 0.99 * corner.mean()
    assert found.inputs == 11 and found.attack == "PGD-20" and found.eps == (0.02, 0.1)


def test_an_attack_moves_what_it_aims_at_further_than_noise(model, data):
    found = noise_stability(
        model, *data, model.layers[-1], kr.attacks.FGSM(eps=0.1), eps=[0.1], batch_size=50
    )
    assert found.moved["adversarial"][0] > 1.2 * found.moved["random"][0]


def test_examples_may_be_made_for_another_model(model, data):
    x, y = data
    seen = []

    def other(inputs):
        seen.append(1)
        return inputs[:, 2:] * 5.0

    found = noise_stability(model, x, y, "half", eps=[0.1], made_for=other)
    assert seen and found.size["adversarial"][0] > 0


def test_it_repeats_with_its_seed(model, data):
    runs = [noise_stability(model, *data, "half", eps=[0.05], seed=s) for s in (3, 3, 4)]
    sizes = [run.size["adversarial"][0] for run in runs]
    moved = [run.moved["random"][0] for run in runs]
    assert sizes[0] == sizes[1] and moved[0] == moved[1] != moved[2]


def test_the_picture_names_its_curves(model, data, tmp_path):
    found = noise_stability(model, *data, "half", eps=[0.0, 0.05])
    path = plot_stability({"plain": found}, tmp_path / "s.svg")
    words = re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text())
    assert {"plain adversarial", "plain random"} <= set(words)
    assert found.plot(tmp_path / "s.png").exists()
    assert found.to_dict()["size"]["random"][0] == 0.0


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"attack": kr.attacks.Noise(rms=0.1)}, TypeError, "`attack` must have an eps"),
        ({"attack": "pgd"}, TypeError, "`attack` must have an eps"),
        ({"attack": kr.attacks.PGD(0.1, targeted=True)}, ValueError, "`attack` is targeted"),
        ({"eps": []}, ValueError, "`eps` must hold radii >= 0"),
        ({"eps": [-1.0]}, ValueError, "`eps` must hold radii >= 0"),
        ({"layer": "other"}, ValueError, "'other' is no layer"),
        ({"batch_size": 0.5}, ValueError, "`batch_size` must be a whole"),
        ({"y": [0]}, ValueError, "must have the same length"),
    ],
)
def test_wrong_input_says_what_to_do(model, data, settings, error, message):
    arguments = {"x": data[0], "y": data[1], "layer": "half", **settings}
    with pytest.raises(error, match=message):
        noise_stability(model, **arguments)


def test_a_layer_that_is_zero_is_refused(data):
    layers = [keras.layers.Rescaling(-1.0), keras.layers.ReLU(name="dead"), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    with pytest.raises(ValueError, match="'dead' is zero for all inputs"):
        noise_stability(model, *data, "dead", kr.attacks.Square(eps=0.1, queries=5), eps=[0.1])
