import dataclasses

import numpy as np
import pytest

import keras_robust as kr
from keras_robust._keras import LEGACY, keras
from keras_robust.compress import Cluster, Quantize, Recipe
from keras_robust.compress._flatten import flatten
from keras_robust.compress._kernels import kernels
from keras_robust.compress._seeds import seeded
from keras_robust.compress._stage import Context

pytestmark = pytest.mark.skipif(not LEGACY, reason="compress needs tf_keras")
CONTEXT = Context(1, 4)


def pruned_model(tools, share=0.6):
    model = flatten(tools.model())
    for name in ("conv_b", "hidden", "out"):
        kernel = model.get_layer(name).kernel
        values = kernel.numpy()
        values[np.abs(values) < np.quantile(np.abs(values), share)] = 0
        kernel.assign(values)
    return model


@pytest.mark.parametrize(
    ("init", "clusters", "jit"),
    [("linear", 8, True), ("kmeans++", 5, False), ("random", 4, False), ("density", 6, False)],
)
def test_kernels_hold_few_values_and_keep_their_zeros(tools, init, clusters, jit):
    stage = Cluster(clusters, init=init)
    model = pruned_model(tools)
    with seeded(0):
        plain = tools.run_stage(stage, model, CONTEXT, tools.dataset(), jit)
    before, after = kernels(model), kernels(plain)
    for key, kernel in after.items():
        assert 2 <= np.unique(kernel.values).size <= clusters, key
        assert np.all(kernel.values[before[key].values == 0] == 0), key
    # conv_a had no zeros, so it was given no zero centroid to keep.
    assert not stage.broken(before, after, stage.check(model, CONTEXT), CONTEXT)


def test_where_the_centroids_start(tools):
    model = flatten(tools.model())
    values = model.get_layer("hidden").get_weights()[0].ravel()
    # Most weights small, a few large: equal shares and equal spaces are far apart.
    order = np.argsort(np.argsort(np.abs(values)))
    values = np.sign(values) * np.linspace(0.1, 1, values.size)[order] ** 4
    kernel = model.get_layer("hidden").kernel
    kernel.assign(values.reshape(kernel.shape))

    def start(init):
        wrapped = Cluster(5, init=init, layers=["hidden"]).wrap(model, CONTEXT)
        found = [w for w in wrapped.weights if "cluster_centroids" in w.name]
        return np.sort(found[0].numpy())

    linear, density, kmeans, random = map(start, ["linear", "density", "kmeans++", "random"])
    np.testing.assert_allclose(linear, np.linspace(values.min(), values.max(), 5), atol=1e-6)
    # TF-MOT reads the shares off a grid of 30 points.
    shares = np.quantile(values, np.linspace(0.01, 1, 5))
    assert np.abs(density - shares).max() <= 2 * np.ptp(values) / 29 < 0.3 * linear[3]
    # Weights themselves, the least and the largest not always among them; and any numbers.
    weights = np.float32(values)
    assert np.all(np.isin(kmeans, weights)) and not np.any(np.isin(random, weights))


def test_two_clusters_cannot_keep_zeros(tools):
    for model, context in [
        (pruned_model(tools), CONTEXT),
        (flatten(tools.model()), CONTEXT._replace(sparse=True)),
    ]:
        with pytest.raises(ValueError, match="at least 3 to keep the zeros.*got 2"):
            Cluster(2).check(model, context)
        assert Cluster(2, preserve_sparsity=False).check(model, context)
    plain = tools.run_stage(Cluster(2), flatten(tools.model()), CONTEXT, tools.dataset())
    assert np.unique(plain.get_layer("hidden").kernel.numpy()).size == 2


def test_a_number_for_each_layer(tools):
    stage = Cluster({"conv_a": 5, "hidden": 12})
    model = pruned_model(tools)
    assert (stage.clusters, stage.most) == ((("conv_a", 5), ("hidden", 12)), 12)
    assert stage == dataclasses.replace(stage) and len({stage, dataclasses.replace(stage)}) == 1
    plain = tools.run_stage(stage, model, CONTEXT, tools.dataset())
    before, after = kernels(model), kernels(plain)
    assert after["conv_a", "kernel"].distinct <= 5 < after["hidden", "kernel"].distinct <= 12
    zero = before["hidden", "kernel"].values == 0
    assert zero.any() and np.all(after["hidden", "kernel"].values[zero] == 0)
    for name in ("conv_b", "out"):
        assert after[name, "kernel"].distinct > 12
    assert not stage.broken(before, after, stage.check(model, CONTEXT), CONTEXT)
    told = Cluster({"conv_a": 3, "hidden": 12}).broken(before, after, ["conv_a"], CONTEXT)
    assert told == ["layer 'conv_a': 5 different values, clusters=3 was asked"]


@pytest.mark.parametrize(
    ("clusters", "match"),
    [
        ({"conv_a": 4, "nowhere": 4}, r"names \['nowhere'\], which the model does not have"),
        ({"scale": 4}, "names {'scale': 'Rescaling'}, whose weights TF-MOT cannot cluster"),
        ({"hidden": 2, "conv_a": 2}, r"`clusters\['hidden'\]` must be at least 3 to keep the ze"),
        ({"hidden": 999, "out": 48}, "is {'hidden': 999, 'out': 48}, but no kernel has more"),
    ],
)
def test_a_number_for_a_layer_that_cannot_take_it(tools, clusters, match):
    with pytest.raises(ValueError, match=match):
        Cluster(clusters).check(pruned_model(tools), CONTEXT)
    # Without zeros two values are enough, whatever the other kernels hold.
    assert Cluster({"conv_a": 2}).check(pruned_model(tools), CONTEXT) == ["conv_a"]


def test_small_kernels_are_left_alone(tools):
    stage = Cluster(72)
    model = flatten(tools.model())
    # conv_a has 72 weights, out 48: no more than clusters.
    assert stage.check(model, CONTEXT) == ["conv_b", "hidden"]
    wrapped = stage.wrap(model, CONTEXT)
    plain = stage.strip(wrapped, model)
    for name in ("conv_a", "out"):
        assert np.array_equal(plain.get_layer(name).kernel, model.get_layer(name).kernel)


def test_broken_promises_are_told(tools):
    model = pruned_model(tools)
    before = kernels(model)
    after = kernels(flatten(tools.model()))
    told = Cluster(8).broken(before, after, ["hidden"], CONTEXT)
    assert "layer 'hidden': 384 different values, clusters=8 was asked" in told
    assert any("'hidden': 230 of 230 zeros of its kernel were lost" in line for line in told)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (dict(clusters=1), ValueError, "at least 2, got 1"),
        (dict(clusters=2.5), TypeError, "whole number, got 2.5"),
        (dict(clusters=True), TypeError, "whole number"),
        (dict(clusters={}), ValueError, "`clusters` is an empty dict. Name a layer"),
        (dict(clusters={"a": 1}), ValueError, r"`clusters\['a'\]` must be at least 2, got 1"),
        (dict(clusters={"a": "8"}), TypeError, r"`clusters\['a'\]` must be a whole number"),
        (dict(clusters={1: 8}), TypeError, "dict from the names of layers.*got {1: 8}"),
        (dict(clusters=(4, 8)), TypeError, r"dict from the names of layers.*got \(4, 8\)"),
        (dict(clusters=[4, 8]), TypeError, r"a whole number, got \[4, 8\]"),
        (dict(clusters={"a": 4}, layers=["b"]), ValueError, "`layers` must be left out where `cl"),
        (dict(clusters=4, init="pca"), ValueError, "`init` must be one of .*'kmeans"),
        (dict(clusters=4, layers="x"), TypeError, "sequence of layer names"),
        (dict(clusters=4, per_channel="yes"), TypeError, "`per_channel` must be True or False"),
    ],
)
def test_errors(arguments, error, match):
    with pytest.raises(error, match=match):
        Cluster(**arguments)


def test_more_clusters_than_weights(tools):
    with pytest.raises(ValueError, match="no kernel has more weights.*fewer clusters"):
        Cluster(10_000).check(flatten(tools.model()), CONTEXT)


def test_frozen_layers_are_not_clustered():
    model = keras.Sequential(
        [keras.layers.Dense(8, input_shape=(8,), name="a"), keras.layers.Dense(8, name="b")]
    )
    model.layers[0].trainable = False
    assert Cluster(4).check(flatten(model), CONTEXT) == ["b"]


def test_each_channel_has_centroids_of_its_own(tools):
    model = flatten(tools.model())
    stage = Cluster(3, per_channel=True, layers=["conv_a", "hidden"])
    context = Context(1, 4)
    plain = tools.run_stage(stage, model, context, tools.dataset())
    kernel = plain.get_layer("conv_a").get_weights()[0]
    each = [np.unique(kernel[..., channel]).size for channel in range(kernel.shape[-1])]
    assert max(each) <= 3 < np.unique(kernel).size
    assert np.unique(plain.get_layer("hidden").get_weights()[0]).size <= 3
    after = kernels(plain)
    assert not stage.broken(kernels(model), after, ["conv_a", "hidden"], context)
    assert Cluster(2, per_channel=True).broken({}, after, ["conv_a"], context)
    with pytest.raises(ValueError, match="Quantize after Cluster.per_channel=True"):
        Recipe([stage, Quantize()])


@pytest.mark.parametrize("init", ["linear", "kmeans++", "random", "density"])
def test_channels_that_were_pruned_away_are_clustered_with_the_others(tools, rng, init):
    """And one without a bias; one with too few weights a channel keeps its zeros."""
    conv = keras.layers.Conv2D
    model = keras.Sequential(
        [
            keras.Input(tools.shape),
            conv(6, 2, name="small"),
            conv(8, 3, use_bias=False, name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dense(tools.classes),
        ]
    )
    zeros = {}
    for name in ("small", "conv"):
        layer = model.get_layer(name)
        kernel, *bias = layer.get_weights()
        kernel[rng.uniform(size=kernel.shape) < 0.6] = 0.0
        kernel[..., 0] = 0.0
        kernel[1:, ..., 1] = 0.0  # Fewer weights than clusters.
        layer.set_weights([kernel, *bias])
        zeros[name] = kernel == 0
    channel = model.get_layer("small").kernel[..., 0].shape.num_elements()
    assert channel < 6 < 9 * 6
    stage = Cluster(6, init=init, per_channel=True, layers=["small", "conv"])
    flat, context = flatten(model), Context(1, 4)
    assert stage.check(flat, context) == ["conv"]
    plain = tools.run_stage(stage, flat, context, tools.dataset())
    assert not stage.broken(kernels(flat), kernels(plain), ["conv"], context)
    for name, before in zeros.items():
        assert (plain.get_layer(name).get_weights()[0][before] == 0).all()
    kernel = plain.get_layer("conv").get_weights()[0]
    each = [np.unique(kernel[..., channel]).size for channel in range(8)]
    assert each[0] == 1 and 3 < max(each) <= 6
    assert np.abs(kernel - model.get_layer("conv").get_weights()[0]).max() > 1e-3


def test_an_almost_empty_kernel_keeps_its_few_weights(tools):
    model = flatten(tools.model())
    layer = model.get_layer("hidden")
    kernel, bias = layer.get_weights()
    kernel[2:] = kernel[:, 1:] = 0.0
    layer.set_weights([kernel, bias])
    stage = Cluster(8, init="kmeans++", layers=["hidden"])
    wrapped = stage.wrap(model, Context(1, 4))
    stripped = stage.strip(wrapped, model)
    np.testing.assert_array_equal(stripped.get_layer("hidden").get_weights()[0], kernel)


def low_rank_model():
    dense = [keras.layers.Dense(6, name="first"), kr.layers.LowRankDense(6, 2, name="low")]
    return keras.Sequential([keras.Input((5,)), *dense, keras.layers.Dense(3, name="out")])


def test_layers_of_two_factors_are_not_passed_over_in_silence():
    match = r"layers {'low': 'LowRankDense'} with weights that Cluster cannot cluster"
    model = flatten(low_rank_model())
    with pytest.raises(ValueError, match=match):
        Cluster(4).check(model, CONTEXT)
    rest = Cluster(4, layers=lambda layer: layer.name != "low")
    assert rest.check(model, CONTEXT) == ["first", "out"]
