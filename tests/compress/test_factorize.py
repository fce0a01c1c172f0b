"""Trained layers cut to low rank: exact at full rank, best at any other, plain afterwards."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import LEGACY, keras
from keras_robust.compress._factorize import Factorize, factor
from keras_robust.compress._graph import replace
from keras_robust.compress._stage import Context

layers = keras.layers


def make(seed=0):
    """An input of 7 x 7, convolutions of every setting, and a shared dense layer."""
    inputs = keras.Input((7, 7, 2))
    x = layers.Conv2D(12, 3, strides=2, padding="same", activation="relu", name="stride")(inputs)
    x = layers.Conv2D(10, 3, dilation_rate=2, padding="same", use_bias=False, name="dilated")(x)
    x = layers.Conv2D(16, 1, activation="tanh", name="point")(x)
    x = layers.Flatten()(x)
    shared = layers.Dense(16, name="shared")
    x = layers.Dense(16, kernel_regularizer="l2", name="dense")(x)
    x = layers.Add()([shared(x), shared(layers.ReLU()(shared(x)))])
    model = keras.Model(inputs, layers.Dense(3, name="out")(x), name="net")
    generator = np.random.default_rng(seed)
    model.set_weights([generator.normal(0, 0.3, w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).random((5, 7, 7, 2)).astype("float32")


def matrix(layer):
    kernel = np.asarray(layer.kernel, "float64")
    return kernel.reshape(-1, kernel.shape[-1])


def test_at_full_rank_it_is_the_model(model, images):
    def full(layer):
        if type(layer) not in (layers.Dense, layers.Conv2D):
            return None
        return factor(layer, min(matrix(layer).shape), f"{layer.name}_rank")

    changed = replace(model, full)
    np.testing.assert_allclose(changed(images), model(images), rtol=1e-5, atol=2e-5)
    assert len(changed.layers) == len(model.layers) + 6


@pytest.mark.parametrize("stage", [Factorize(rank=2), Factorize(rank={"stride": 3, "dense": 4})])
def test_each_kernel_becomes_its_best_of_the_rank(stage, model):
    before = [w.copy() for w in model.get_weights()]
    small, plan = stage.apply(model), stage.plan(model)
    assert {row["layer"] for row in plan.rows} == (
        {"stride", "dense"}
        if isinstance(stage.rank, dict)
        else {"stride", "dilated", "point", "dense", "shared", "out"}
    )
    for row in plan.rows:
        old, rank = model.get_layer(row["layer"]), row["rank"]
        first, second = small.get_layer(f"{old.name}_rank"), small.get_layer(old.name)
        product, values = matrix(first) @ matrix(second), np.linalg.svd(matrix(old))[1]
        assert matrix(first).shape[1] == rank and first.bias is None
        lost = np.linalg.norm(product - matrix(old))
        np.testing.assert_allclose(lost, np.sqrt(np.sum(values[rank:] ** 2)), rtol=1e-4)
        np.testing.assert_allclose(row["error"], lost / np.linalg.norm(values), rtol=1e-4)
        sides = [np.linalg.svd(matrix(own))[1][:rank] for own in (first, second)]
        np.testing.assert_allclose(sides[0], sides[1], rtol=1e-4)  # sqrt(S) on both
        assert row["weights_after"] == sum(matrix(own).size for own in (first, second))
        if old.bias is not None:
            np.testing.assert_array_equal(second.bias, old.bias)
    assert keras.activations.serialize(small.get_layer("stride_rank").activation) == "linear"
    assert small.get_layer("dense").kernel_regularizer is None
    assert small.output_shape == model.output_shape and small.name == "net"
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_energy_and_budget_keep_what_they_say(model):
    for row in Factorize(energy=0.5).plan(model).rows:
        values = np.linalg.svd(matrix(model.get_layer(row["layer"])))[1] ** 2
        assert values[: row["rank"]].sum() >= 0.5 * values.sum()
        assert values[: row["rank"] - 1].sum() < 0.5 * values.sum()
    plan = Factorize(budget=0.5).plan(model)
    assert len(plan.rows) == 6 and 0.45 < plan.kept <= 0.5
    whole = [row["layer"] for row in plan.rows if row["rank"] is None]
    small = Factorize(budget=0.5).apply(model)
    names = {layer.name for layer in small.layers}
    assert {f"{row['layer']}_rank" in names for row in plan.rows if row["rank"]} == {True}
    assert not {f"{name}_rank" for name in whole} & names
    assert not set(whole) & set(Factorize(budget=0.5).check(model, Context(1, 1)))
    count = kr.compress.count
    assert count(small).parameters < count(model).parameters
    assert count(small).multiply_adds < count(model).multiply_adds


def test_a_plan_prints(model):
    text = str(Factorize(rank=2, layers=["dense"]).plan(model)).splitlines()
    assert text[0].split() == ["layer", *"kind rank weights after kept relative error".split()]
    assert text[1].split()[:6] == ["dense", "Dense", "2", "4,096", "544", "0.133"]


def test_what_does_not_pay_is_skipped_or_refused_with_the_largest_rank(model):
    assert [row["layer"] for row in Factorize(rank=3).plan(model).rows].count("out") == 0
    with pytest.raises(
        ValueError,
        match=r"'out' would not get smaller at rank 3: 3 x \(16 \+ 3\) = 57 weights for its 48. "
        "The largest rank that pays is 2",
    ):
        Factorize(rank=3, layers=["out"]).apply(model)
    with pytest.raises(ValueError, match=r"rank that pays is 7"):
        Factorize(rank={"shared": 8}).apply(model)
    with pytest.raises(ValueError, match="Nothing would get smaller.*'stride'.*'out'"):
        Factorize(rank=50).apply(model)
    with pytest.raises(ValueError, match="Nothing would get smaller"):
        Factorize(energy=1.0).apply(model)


def test_nested_and_sequential_models_mixed_precision_and_frozen_layers(rng):
    inner = keras.Sequential([keras.Input((16,)), layers.Dense(16, name="a")], name="inner")
    last = layers.Dense(8, name="b", dtype="mixed_float16")
    model = keras.Sequential([keras.Input((16,)), inner, last])
    inner.layers[0].trainable = False
    small = Factorize(rank=5).apply(model)
    found = small.get_layer("inner")
    assert [layer.name for layer in found.layers] == ["a_rank", "a"]
    assert not found.layers[0].trainable and small.get_layer("b_rank").trainable
    x = rng.random((2, 16)).astype("float32")
    assert small(x).dtype == tf.float16 and small.get_layer("b_rank").kernel.dtype == "float32"


def test_a_grouped_convolution_is_refused_by_name():
    grouped = layers.Conv2D(8, 3, groups=2, name="grouped")
    model = keras.Sequential([keras.Input((8, 8, 8)), grouped, layers.ReLU(name="relu")])
    with pytest.raises(ValueError, match="no layer to factorize. 'grouped': its 2 groups"):
        Factorize(rank=1).apply(model)
    with pytest.raises(ValueError, match="'grouped' cannot be taken to factorize: its 2 groups"):
        Factorize(rank=1, layers=["grouped"]).apply(model)
    with pytest.raises(ValueError, match="ReLU is neither Dense nor Conv2D"):
        Factorize(rank=1, layers=["relu"]).apply(model)
    with pytest.raises(ValueError, match="names 'nothing', which the model does not have"):
        Factorize(rank=1, layers=["nothing"]).apply(model)


def test_as_a_stage_it_trains_with_the_penalty_and_strips_it(rng):
    stage, context = Factorize(rank=3, penalty=0.01), Context(epochs=1, steps=1)
    model = keras.Sequential([keras.Input((16,)), layers.Dense(12, name="a"), layers.Dense(9)])
    assert stage.check(model, context)[0] == "a"
    wrapped = stage.wrap(model, context)
    assert len(wrapped.losses) == 4 and stage.callbacks(wrapped, context) == []
    x = rng.random((5, 16)).astype("float32")
    before = np.asarray(wrapped(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    wrapped.compile(keras.optimizers.SGD(0.05), loss, jit_compile=True)
    wrapped.fit(x, np.arange(5), verbose=0)
    plain = stage.strip(wrapped, model)
    assert not plain.losses and stage.broken({}, {}, [], context) == []
    np.testing.assert_allclose(plain(x), wrapped(x), atol=1e-6)
    assert np.abs(plain(x) - before).max() > 1e-4


def test_strip_leaves_a_penalty_and_a_constraint_of_the_user():
    own = dict(kernel_regularizer=kr.layers.ConditionPenalty(0.5), kernel_constraint="non_neg")
    stack = [layers.Dense(12, name="a", **own), layers.Dense(9, name="b"), layers.Dense(9)]
    model = keras.Sequential([keras.Input((16,)), *stack])
    context = Context(epochs=1, steps=1)
    for penalty, count in ((0.01, 3), (0.0, 1)):
        stage = Factorize(rank=2, layers=["b"], penalty=penalty)
        wrapped = stage.wrap(model, context)
        assert len(wrapped.losses) == count
        plain = stage.strip(wrapped, model)
        kept = plain.get_layer("a")
        assert kept.kernel_regularizer.weight == 0.5 and kept.kernel_constraint is not None
        assert plain.get_layer("b_rank").kernel_regularizer is None and len(plain.losses) == 1


def test_the_device_runs_it(model, images, tmp_path):
    small = Factorize(budget=0.4).apply(model)
    exported = kr.export.tflite(small, tmp_path / "small.tflite", check=images)
    assert exported.agreement == 1.0
    other = (kr.to_keras3 if LEGACY else kr.from_keras3)(small)
    np.testing.assert_allclose(other(images), small(images), atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({}, ValueError, "exactly one of `rank`, `energy` and `budget`, got none"),
        ({"rank": 2, "budget": 0.5}, ValueError, "got rank, budget"),
        ({"rank": 0}, ValueError, "`rank` must be a whole number >= 1, got 0"),
        ({"rank": {"a": 2.5}}, ValueError, r"`rank\['a'\]` must be a whole number"),
        ({"rank": {"a": 2}, "layers": ["a"]}, ValueError, "no meaning beside a dict"),
        ({"energy": 1.1}, ValueError, r"`energy` must be in \(0, 1\], got 1.1"),
        ({"budget": 1.0}, ValueError, r"`budget` must be in \(0, 1\), got 1.0"),
        ({"budget": "half"}, TypeError, "`budget` must be a number, got 'half'"),
        ({"rank": 2, "penalty": -1}, ValueError, "`weight` must be a finite number >= 0"),
        ({"rank": 2, "layers": "dense"}, TypeError, "`layers` must be a sequence"),
        ({"rank": 2, "layers": []}, ValueError, "`layers` is empty"),
    ],
)
def test_errors(settings, error, message):
    with pytest.raises(error, match=message):
        Factorize(**settings)
