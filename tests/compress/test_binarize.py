"""Binary layers put in and taken out again: signs, outputs, bytes, and what is refused."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._batch_norm import measure_batch_norm
from keras_robust._keras import LEGACY, keras
from keras_robust.compress import (
    Binarize,
    Factorize,
    Prune,
    PruneByScores,
    PruneNeurons,
    Recipe,
    Separate,
    binarize,
    freeze_binary,
)
from keras_robust.compress._binarize import frozen_binary
from keras_robust.compress._kernels import Kernel
from keras_robust.compress._stage import Context
from keras_robust.export._interpreter import load
from keras_robust.layers import BinaryConv2D, BinaryDense

X = np.random.default_rng(0).uniform(size=(5, 8, 8, 2)).astype("float32")


@pytest.fixture(scope="module")
def plain():
    """Every kind of layer, one inside a nested model, and one that is called twice."""
    layers, start = keras.layers, keras.initializers.GlorotUniform
    inputs = keras.Input(X.shape[1:])
    shared = layers.Conv2D(
        2, 3, padding="same", activation="relu", kernel_initializer=start(seed=0), name="conv"
    )
    x = shared(shared(inputs))
    x = layers.DepthwiseConv2D(3, depthwise_initializer=start(seed=1), name="depthwise")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Conv2D(4, 3, groups=2, kernel_initializer=start(seed=2), name="grouped")(x)
    first = keras.Input((4, 4, 4))
    hidden = layers.Dense(
        150, kernel_initializer=start(seed=3), bias_initializer="ones", name="hidden"
    )
    x = keras.Model(first, hidden(layers.Flatten()(first)), name="inner")(x)
    x = layers.Dense(3, kernel_initializer=start(seed=4), use_bias=False, name="logits")(x)
    return keras.Model(inputs, x)


@pytest.fixture(scope="module")
def binary(plain):
    return binarize(plain, stochastic=True)


def layer_of(model, name):
    return model.get_layer("inner").get_layer(name) if name == "hidden" else model.get_layer(name)


def kernel_of(layer):
    found = getattr(layer, "depthwise_kernel", None)
    return (layer.kernel if found is None else found).numpy()


def test_signs_and_magnitudes_are_those_of_the_model(plain, binary):
    before = [weight.copy() for weight in plain.get_weights()]
    for name in ("conv", "depthwise", "hidden", "logits"):
        old, new = layer_of(plain, name), layer_of(binary, name)
        kernel = kernel_of(old)
        mean = np.abs(kernel).mean()
        np.testing.assert_allclose(new.kernel, mean * np.sign(kernel), rtol=1e-6)
        np.testing.assert_allclose(new.real, np.clip(kernel, -mean, mean), rtol=1e-5, atol=1e-7)
        if old.use_bias:
            np.testing.assert_array_equal(new.bias, old.bias)
        assert new.stochastic and type(new).__name__ == f"Binary{type(old).__name__}"
    assert type(binary.get_layer("grouped")) is keras.layers.Conv2D
    np.testing.assert_array_equal(binary.get_layer("grouped").kernel, plain.layers[-3].kernel)
    for weight, kept in zip(plain.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, kept)


def test_mean_is_the_nearest_scale(plain, binary):
    kernel = kernel_of(layer_of(plain, "hidden"))
    best = np.sum((kernel - layer_of(binary, "hidden").kernel) ** 2)
    for factor in (0.98, 1.02):
        assert best < np.sum((kernel - factor * layer_of(binary, "hidden").kernel.numpy()) ** 2)


def test_frozen_packed_and_unpacked_it_computes_the_same(binary, tmp_path):
    frozen = freeze_binary(binary)
    kinds = {type(layer) for layer in frozen.layers} | {type(layer_of(frozen, "hidden"))}
    assert not kinds & {BinaryDense, BinaryConv2D}
    expected = binary(X, training=False).numpy()
    np.testing.assert_array_equal(frozen(X, training=False), expected)
    packed = kr.compress.pack(frozen, tmp_path / "model.krz")
    loaded = kr.compress.unpack(tmp_path / "model.krz")
    np.testing.assert_array_equal(loaded(X, training=False), expected)
    rows = kr.compress.size_report(frozen).weights
    (row,) = [row for row in rows if row["layer"] == "hidden" and row["weight"] == "kernel"]
    # A bit a weight, and some bytes of coder and codebook.
    assert row["distinct"] == 2 and row["packed"] <= 64 * 150 / 8 + 48
    assert packed < 64 * 150 / 8 + 2500


def test_what_is_frozen_can_be_chosen(plain):
    model = binarize(plain, test_weights="real", layers=["logits"], scale=0.5)
    real = freeze_binary(model).get_layer("logits").kernel
    np.testing.assert_array_equal(real, model.get_layer("logits").real)
    signs = freeze_binary(model, "binary").get_layer("logits").kernel
    np.testing.assert_array_equal(signs, 0.5 * np.sign(real))
    assert set(np.unique(freeze_binary(model, "sampled").get_layer("logits").kernel)) == {-0.5, 0.5}
    assert type(layer_of(model, "hidden")) is keras.layers.Dense


def test_the_scale_of_the_learning_rate_is_handed_on(plain):
    model = binarize(plain, learning_rate_scale=2.0, layers=["logits"])
    stage = Binarize(learning_rate_scale=2.0, layers=["logits"])
    for found in (model, stage.wrap(plain, Context(1, 1))):
        layer = found.get_layer("logits")
        assert layer.learning_rate_scale == layer.slope == 2.0
        kernel = kernel_of(plain.get_layer("logits"))
        mean = np.abs(kernel).mean()
        np.testing.assert_allclose(layer.real, np.clip(kernel, -mean, mean), rtol=1e-5, atol=1e-7)


def test_layers_by_name_and_by_function(plain):
    model = binarize(plain, layers=lambda layer: layer.name.startswith("h"))
    found = [layer.name for layer in model._flatten_layers() if hasattr(layer, "latent")]
    assert found == ["hidden"]
    with pytest.raises(ValueError, match=r"`layers` names \['nothing'\], which the model does not"):
        binarize(plain, layers=["nothing"])
    with pytest.raises(ValueError, match="'grouped': 'Conv2D'.*cannot be binary"):
        binarize(plain, layers=["grouped"])
    with pytest.raises(ValueError, match="has no layer to binarize among"):
        binarize(plain, layers=lambda layer: False)


def test_layers_of_one_name_in_several_models():
    def branch():
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, name="d")])

    inputs, a, b = keras.Input((4,)), branch(), branch()
    joined = keras.layers.Concatenate()([a(inputs), b(inputs)])
    model = keras.Model(inputs, keras.layers.Dense(2, name="out")(joined))
    binary = kr.compress.binarize(model, layers=lambda layer: layer is b.layers[-1])
    kinds = [type(layer).__name__ for layer in binary._flatten_layers() if layer.name == "d"]
    assert sorted(kinds) == ["BinaryDense", "Dense"]
    with pytest.raises(ValueError, match=r"names \['d'\], but several layers"):
        kr.compress.binarize(model, layers=["d"])


def test_trains_on(binary):
    x, y = X[:4], np.arange(4) % 3
    model = binarize(freeze_binary(binary))
    trainer = kr.AdversarialTraining(model, kr.attacks.FGSM(0.05))
    trainer.compile(keras.optimizers.Adam(0.01), kr.losses.SquaredHinge())
    before = layer_of(model, "hidden").kernel.numpy()
    trainer.fit(x, y, epochs=3, verbose=0)
    after = layer_of(model, "hidden").kernel.numpy()
    assert 0 < np.mean(before != after) < 1


def test_refuses(plain):
    with pytest.raises(TypeError, match="`model` must be a Keras model, got function"):
        binarize(lambda x: x)
    with pytest.raises(ValueError, match="`test_weights` must be one of .*, got 'none'"):
        binarize(plain, test_weights="none")
    with pytest.raises(ValueError, match="`scale` must be"):
        binarize(plain, scale="median")
    with pytest.raises(ValueError, match="`weights` must be one of .* or None, got 'signs'"):
        freeze_binary(plain, "signs")
    with pytest.raises(ValueError, match="has no binary layer. Make some with"):
        freeze_binary(plain)
    zeros = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, kernel_initializer="zeros", name="empty")]
    )
    with pytest.raises(ValueError, match="kernel of layer 'empty' must be finite and not all zero"):
        binarize(zeros)


def test_batch_norm_is_measured_for_the_frozen_weights():
    """Drawn weights spread a layer's outputs wider than real ones: the statistics are of these."""
    layers = [BinaryDense(6, stochastic=True, test_weights="real", name="binary")]
    layers.append(keras.layers.BatchNormalization(name="norm"))
    model = keras.Sequential([keras.Input((4,)), *layers])
    x = np.random.default_rng(0).uniform(size=(60, 4)).astype("float32")
    batches = tf.data.Dataset.from_tensor_slices(x).batch(20)
    before = [weight.copy() for weight in model.get_weights()]

    kept, frozen = freeze_binary(model), freeze_binary(model, batch_norm=batches)

    outputs = (x @ np.asarray(layers[0].real)).reshape(3, 20, 6)
    norm = frozen.get_layer("norm")
    np.testing.assert_allclose(norm.moving_variance, outputs.var(1).mean(0), rtol=1e-4)
    np.testing.assert_allclose(norm.moving_mean, outputs.mean((0, 1)), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(kept.get_layer("norm").moving_mean, np.zeros(6))
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)
    with pytest.raises(ValueError, match="`batch_norm` must be a tf.data.Dataset"):
        freeze_binary(model, batch_norm=x)


def test_a_frozen_model_is_known_by_its_opposites(plain, binary):
    found = frozen_binary(freeze_binary(binary))
    assert set(found) == {"conv", "depthwise", "hidden", "logits"}
    kernel = np.asarray(plain.get_layer("conv").kernel)
    assert found["conv"] == pytest.approx(np.abs(kernel).mean(), rel=1e-6)
    assert not frozen_binary(plain) and not frozen_binary(freeze_binary(binary, "real"))
    # Few values are not binary ones, nor is a constant.
    for values in ([0.5, -0.25], [0.5, 0.0], [0.5, 0.5], [0.5, 0.0, -0.5]):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(6, use_bias=False)])
        model.set_weights([np.resize(np.float32(values), (1, 6))])
        assert not frozen_binary(model)


@pytest.mark.parametrize(
    "stage",
    ["Prune(0.5)", "PruneNeurons(0.5)"]
    + (["Quantize()", "Cluster(4)", 'Quantize(preserve=("sparsity",))'] if LEGACY else []),
)
def test_a_recipe_refuses_a_frozen_model(stage):
    frozen, data = small_frozen()
    stage = eval(stage, vars(kr.compress))  # Made here: two of them need tf_keras.
    calls = []
    with pytest.raises(ValueError, match=r"`model` has binary weights in the layers \['hidden'"):
        kr.compress.Recipe([stage]).run(frozen, data, fine_tune=calls.append, verbose=0)
    assert not calls


@pytest.mark.skipif(not LEGACY, reason="Cluster and Quantize need tf_keras")
def test_few_values_by_clusters_are_no_binary_ones():
    frozen, data = small_frozen()
    keep = kr.compress.Quantize(preserve=("clusters",))
    kept = kr.compress.Recipe([keep]).run(frozen, data, epochs=1, verbose=0)
    assert [row["distinct_after"] for row in kept.stages[0].layers] == [2, 2]
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6), keras.layers.Dense(3)])
    two = kr.compress.Recipe([kr.compress.Cluster(2)]).run(model, data, epochs=1, verbose=0).model
    assert max(np.unique(layer.kernel).size for layer in two.layers if layer.weights) == 2
    again = kr.compress.Recipe([keep]).run(two, data, epochs=1, verbose=0)
    assert [row["distinct_after"] for row in again.stages[0].layers] == [2, 2]


def small_frozen():
    """A model of binary weights, and batches for it."""
    start = keras.initializers.GlorotUniform
    hidden = keras.layers.Dense(6, "relu", kernel_initializer=start(seed=0), name="hidden")
    logits = keras.layers.Dense(3, kernel_initializer=start(seed=1), name="logits")
    frozen = freeze_binary(binarize(keras.Sequential([keras.Input((4,)), hidden, logits])))
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(64, 4)).astype("float32"), rng.integers(0, 3, 64)
    return frozen, tf.data.Dataset.from_tensor_slices((x, y)).batch(16)


def values_of(model, name):
    return np.unique(kernel_of(model.get_layer(name)))


def test_the_stage_leaves_two_values(tools, tmp_path):
    """After another stage, trained adversarially; for the packed file and for int8."""
    model = tools.model()
    before = model.get_weights()
    stages = [PruneNeurons(0.25, layers=["conv_b"]), Binarize(layers=["conv_b", "hidden"])]
    result = Recipe(stages).run(
        model,
        tools.dataset(),
        fine_tune=lambda m: kr.AdversarialTraining(m, kr.attacks.FGSM(0.03)),
        optimizer=keras.optimizers.Adam(0.01),
        epochs=[1, 6],
        verbose=0,
    )
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    stage = result.stages[1]
    assert stage.name == "binarized" and not stage.broken
    assert stage.history["robust_accuracy"][-1] > 0.5  # of 4 classes
    small = result.model
    assert not any(isinstance(layer, (BinaryConv2D, BinaryDense)) for layer in small.layers)
    assert small.get_layer("conv_b").kernel.shape == (3, 3, 8, 6)
    for name in ("conv_b", "hidden"):
        low, high = values_of(small, name)
        assert -low == high > 0
    assert values_of(small, "conv_a").size == 72
    rows = kr.compress.size_report(small).weights
    (row,) = [row for row in rows if row["layer"] == "conv_b" and row["weight"] == "kernel"]
    assert row["distinct"] == 2 and row["packed"] <= 9 * 8 * 6 / 8 + 48
    x, _ = tools.data(64)
    kr.export.tflite(small, tmp_path / "int8.tflite", representative=x)
    interpreter = load(tmp_path / "int8.tflite")
    shapes = {(6, 3, 3, 8), (12, 24)}
    for detail in interpreter.get_tensor_details():
        if tuple(detail["shape"]) in shapes and detail["dtype"] == np.int8:
            codes = interpreter.get_tensor(detail["index"])
            assert np.unique(codes).tolist() == [-127, 127]
            shapes.remove(codes.shape)
    assert not shapes


def drawn(tools, seed):
    layers = keras.layers
    start = keras.initializers.GlorotUniform(seed=1)
    model = keras.Sequential(
        [
            keras.Input(tools.shape),
            layers.Flatten(),
            layers.Dense(8, use_bias=False, kernel_initializer=start, name="hidden"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.Dense(tools.classes, kernel_initializer=start, name="logits"),
        ]
    )
    stage = Binarize(stochastic=True)
    return Recipe([stage]).run(model, tools.dataset(), epochs=2, verbose=0, seed=seed).model


def test_drawn_weights_repeat_and_leave_the_statistics_of_their_signs(tools):
    model, again, other = (drawn(tools, seed) for seed in (0, 0, 1))
    for one, two in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert np.any(model.get_layer("hidden").kernel != other.get_layer("hidden").kernel)
    norm = model.get_layer("norm")
    found = [np.array(norm.moving_mean), np.array(norm.moving_variance)]
    measure_batch_norm(model, tools.dataset().take(8))
    np.testing.assert_allclose(found[0], norm.moving_mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], norm.moving_variance, rtol=1e-4)


@pytest.mark.parametrize(
    ("stages", "match"),
    [
        ([Prune(0.5), Binarize()], "Binarize after Prune: binary weights have no zeros"),
        ([Binarize(), Prune(0.5)], "Prune after Binarize: zeros would be a third value"),
        ([PruneByScores(0.5), Binarize()], "binary weights have no zeros"),
        ([Binarize(), PruneNeurons(0.5)], "real weights of the two values again"),
        ([Binarize(), Separate()], "the two values would be lost"),
        ([Binarize(), Factorize(rank=2)], "the two values would be lost"),
        ([Binarize(), Binarize(stochastic=True)], "Binarize twice"),
    ],
)
def test_orders_that_are_refused(stages, match):
    with pytest.raises(ValueError, match=match):
        Recipe(stages)


@pytest.mark.skipif(not LEGACY, reason="TF-MOT needs tf_keras")
def test_orders_with_tfmot_that_are_refused():
    cluster, quantize = kr.compress.Cluster(4), kr.compress.Quantize()
    for stages, match in (
        ([Binarize(), cluster], "Cluster after Binarize: two values .* codebook of two already"),
        ([cluster, Binarize()], "Binarize after Cluster: its two values"),
        ([quantize, Binarize()], "Binarize after Quantize: int8 is the last step"),
    ):
        with pytest.raises(ValueError, match=match):
            Recipe(stages)


def test_the_stage_refuses_before_training(tools):
    with pytest.raises(ValueError, match="`stochastic` must be True or False, got 1"):
        Binarize(stochastic=1)
    with pytest.raises(ValueError, match="`scale` must be"):
        Binarize(scale="median")
    with pytest.raises(TypeError, match="`layers` must be a sequence of layer names"):
        Binarize(layers="hidden")

    def never(model):
        raise AssertionError("training started")

    model = tools.model()
    kernel = model.get_layer("hidden").kernel
    kernel.assign(np.zeros(kernel.shape))
    for layers, match in (
        (["nothing"], r"`layers` names \['nothing'\]"),
        (["hidden"], "kernel of layer 'hidden' must be finite and not all zero"),
    ):
        with pytest.raises(ValueError, match=match):
            Recipe([PruneNeurons(0.25, layers=["conv_b"]), Binarize(layers)]).run(
                model, tools.dataset(), fine_tune=never, verbose=0
            )


def test_a_third_value_breaks_the_promise():
    def told(*values):
        kernel = Kernel("a", "kernel", np.float32([values]))
        return Binarize().broken({}, {("a", "kernel"): kernel}, ["a"], None)

    assert told(0.5, -0.5, 0.5) == told(0.5, 0.5) == []
    assert told(0.5, -0.5, 0.25) == ["layer 'a': 3 different values, not +H and -H"]
    assert told(0.0, 0.0) and told(0.5, -0.4) and told(np.nan, 1.0)
    assert Binarize().broken({}, {("b", "kernel"): Kernel("b", "kernel", np.eye(3))}, [], 0) == []
