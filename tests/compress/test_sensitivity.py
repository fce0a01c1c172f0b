"""Which layers hurt: each alone, against the whole model, and nothing left changed."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.compress import sensitivity
from keras_robust.compress._sensitivity import Sensitivity, rounded, spaced, thinned

kernels = hnp.arrays("float32", (3, 4, 5), elements=st.floats(-2, 2, width=32))


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(values=kernels, bits=st.integers(2, 8))
def test_rounding_keeps_to_its_grid(values, bits):
    small = rounded(values, bits)
    most = np.abs(values).max(axis=(0, 1))
    step = most / (2 ** (bits - 1) - 1)
    assert np.all(np.abs(small - values) <= step / 2 + 1e-6)
    assert max(np.unique(small[..., i]).size for i in range(5)) <= 2**bits - 1
    assert np.all(small[values == 0] == 0)


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(values=kernels, share=st.floats(0.05, 0.95), clusters=st.integers(2, 9))
def test_thinning_and_spacing(values, share, clusters):
    thin = thinned(values, share)
    gone = thin != values
    assert np.sum(thin == 0) >= round(share * values.size)
    kept = np.abs(values[~gone & (thin != 0)])
    assert not gone.any() or not kept.size or np.abs(values[gone]).max() <= kept.min()
    few = spaced(values, clusters)
    assert np.unique(few.astype("float32")).size <= clusters
    step = np.ptp(values) / (clusters - 1)
    assert np.all(np.abs(few - values) <= step / 2 + 1e-5)


@pytest.fixture(scope="module")
def trained(tools):
    model = tools.model()
    trainer = kr.AdversarialTraining(model, kr.attacks.FGSM(0.05))
    trainer.compile(keras.optimizers.Adam(0.01))
    trainer.fit(*tools.data(256), epochs=8, shuffle=False, verbose=0)
    return model


def test_each_layer_alone_is_changed_and_put_back(tools, trained):
    before = trained.get_weights()
    x, y = tools.data(64, seed=1)
    attack = kr.attacks.FGSM(0.05)
    found = sensitivity(trained, x, y, attack, bits=2, batch_size=40)
    assert [row["layer"] for row in found.layers] == ["conv_a", "conv_b", "hidden", "out"]
    assert found.clean == np.mean(np.argmax(trained(x), axis=1) == y)
    for old, new in zip(before, trained.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    # By hand: one of the layers, in the model itself.
    layer, row = trained.get_layer("hidden"), found.layers[2]
    kept = layer.get_weights()
    layer.set_weights([rounded(kept[0], 2), kept[1]])
    right = np.argmax(trained(x), axis=1) == y
    assert row["clean"] == right.mean() and row["weights"] == kept[0].size
    x_adv = np.concatenate([attack(trained, x[i : i + 40], y[i : i + 40]) for i in (0, 40)])
    assert row["robust"] == np.mean(right & (np.argmax(trained(x_adv), axis=1) == y))
    layer.set_weights(kept)
    assert all(row["robust"] <= row["clean"] for row in found.layers)


def test_ranking_and_table(tools, trained):
    x, y = tools.data(64, seed=1)
    found = sensitivity(trained, x, y, sparsity=0.9)
    order = found.most_sensitive(4)
    accuracy = {row["layer"]: row["clean"] for row in found.layers}
    assert [accuracy[name] for name in order] == sorted(accuracy.values())
    worst = found.most_sensitive(loss=0.1)
    assert set(worst) == {n for n, value in accuracy.items() if found.clean - value > 0.1}
    assert found.robust is None
    text = str(found)
    assert "with one layer 90% sparse" in text and "(none)" in text and "conv_b" in text
    assert "of 3 values" in sensitivity(trained, x, y, clusters=3).__str__()


def test_with_an_attack_the_robust_accuracy_ranks():
    rows = [
        {"layer": "a", "weights": 1, "clean": 0.2, "robust": 0.45},
        {"layer": "b", "weights": 1, "clean": 0.85, "robust": 0.1},
        {"layer": "c", "weights": 1, "clean": 0.4, "robust": 0.3},
    ]
    found = Sensitivity("changed", 0.9, 0.5, rows)
    assert found.most_sensitive(3) == ["b", "c", "a"]
    assert found.most_sensitive(loss=0.3) == ["b"]
    clean = Sensitivity("changed", 0.9, None, [row | {"robust": None} for row in rows])
    assert clean.most_sensitive(2) == ["a", "c"] == clean.most_sensitive(loss=0.3)


def test_the_attack_gets_the_seed(tools):
    seeds = []

    def attack(model, x, y, seed=0):
        seeds.append(seed)
        return x

    sensitivity(tools.model(), *tools.data(8), attack, bits=4, seed=7)
    assert seeds == [7] * 5


def test_errors(tools):
    model, (x, y) = tools.model(), tools.data(8)
    for settings in ({}, {"bits": 4, "sparsity": 0.5}):
        with pytest.raises(ValueError, match="Give one of `bits`, `sparsity` and `clusters`"):
            sensitivity(model, x, y, **settings)
    for name, value in [("bits", 1), ("bits", 4.5), ("clusters", 1), ("sparsity", 1)]:
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            sensitivity(model, x, y, **{name: value})
    with pytest.raises(ValueError, match="length|as many"):
        sensitivity(model, x, y[:5], bits=4)
    found = sensitivity(model, x, y, bits=8)
    for settings in ({}, {"count": 1, "loss": 0.1}):
        with pytest.raises(ValueError, match="Give one of `count` and `loss`"):
            found.most_sensitive(**settings)


def test_depthwise_and_transposed_kernels_are_rounded_by_output_channel(rng):
    layers = [keras.layers.DepthwiseConv2D(3, depth_multiplier=2, name="deep")]
    layers += [keras.layers.Conv2DTranspose(3, 2, name="back"), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((4, 4, 2)), *layers, keras.layers.Dense(2)])
    # Powers of two: with a step for each channel 2 bits hold -s, 0 and s exactly.
    for layer, spread in ((layers[0], [[1, 16], [256, 4096]]), (layers[1], [[1], [16], [256]])):
        kernel = layer.get_weights()[0]
        layer.set_weights([np.broadcast_to(spread, kernel.shape), *layer.get_weights()[1:]])
    x = rng.uniform(size=(12, 4, 4, 2)).astype("float32")
    y = np.argmax(model(x), axis=1)
    found = sensitivity(model, x, y, bits=2).layers
    assert {row["layer"]: row["clean"] for row in found[:2]} == {"deep": 1.0, "back": 1.0}


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (dict(attack="pgd"), TypeError, "`attack` must be an attack such as"),
        (dict(batch_size=0), ValueError, "`batch_size` must be at least 1"),
        (dict(x=np.ones((3, 5), "f4")), ValueError, r"inputs of shape \(5,\), .* takes \(4,\)"),
        (dict(x=np.ones((3, 4, 1), "f4")), ValueError, r"`x` has inputs of shape \(4, 1\)"),
        (dict(y=[0, 1, 3]), ValueError, r"`y` must be in \[0, 3\), got labels in \[0, 3\]"),
        (dict(y=np.eye(4)[:3]), ValueError, "`y` has 4 columns, but the model gives 3"),
        (dict(y=np.full((3, 3), 1 / 3)), ValueError, "`y` must be class numbers"),
        (dict(y=[0, 1]), ValueError, "same length, got 3 and 2"),
    ],
)
def test_what_cannot_run_is_refused_first(arguments, error, match):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    arguments = dict(x=np.ones((3, 4), "float32"), y=np.arange(3)) | arguments
    with pytest.raises(error, match=match):
        sensitivity(model, bits=4, **arguments)


def test_a_model_of_two_inputs_is_refused():
    ends = [keras.Input((4,)), keras.Input((4,))]
    model = keras.Model(ends, keras.layers.Dense(3)(keras.layers.Add()(ends)))
    with pytest.raises(ValueError, match="`model` must have one input, got 2"):
        sensitivity(model, np.ones((3, 4), "float32"), np.arange(3), bits=4)
