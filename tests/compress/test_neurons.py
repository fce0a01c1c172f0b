"""Which units `PruneNeurons` takes, what it refuses, and how it runs as a stage."""

import random

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import LEGACY, keras
from keras_robust.compress import PruneNeurons, Recipe, remove_dead, unit_scores
from keras_robust.compress._kernels import kernels
from keras_robust.compress._stage import Context

layers = keras.layers


def chain(units=10, activation="relu"):
    """Unit k of layer "a" is zero unless x > k / units; its weights are k + 1 times as large."""
    model = keras.Sequential(
        [keras.Input((1,)), layers.Dense(units, activation, name="a"),
         layers.Dense(4, "relu", name="b"), layers.Dense(2, name="logits")]
    )  # fmt: skip
    scale, order = np.arange(units) + 1.0, np.arange(units) / units
    model.get_layer("a").set_weights([scale[None], -scale * order])
    model.get_layer("b").set_weights([np.ones((units, 4)), np.arange(4.0)])
    return model


X = ((np.arange(100) + 0.5) / 100).astype("float32")[:, None]


def kept(model):
    """The numbers of the units of "a" that are left: their weights say it."""
    return (model.get_layer("a").get_weights()[0][0] - 1).astype(int).tolist()


def test_amount_takes_the_least_active_or_the_smallest_units():
    model = chain()
    assert unit_scores(model, X)["a"].round(6).tolist() == (np.arange(10) / 10).tolist()
    only = {"layers": ["a"]}
    assert kept(PruneNeurons(0.3, **only).apply(model, X)) == [0, 1, 2, 3, 4, 5, 6]
    assert kept(PruneNeurons(0.3, score="l2", **only).apply(model)) == [3, 4, 5, 6, 7, 8, 9]
    assert kept(PruneNeurons(0.99, score="l1", **only).apply(model)) == [9]
    both = PruneNeurons(0.5).apply(model, X)
    assert [layer.units for layer in both.layers] == [5, 2, 2]
    # Rounded down: a tenth of four is none.
    assert PruneNeurons(0.1, score="l1").apply(model).get_layer("b").units == 4


def test_thresholds():
    model, only = chain(), {"layers": ["a"]}
    apoz = np.arange(10) / 10
    limit = apoz.mean() + apoz.std()
    found = kept(PruneNeurons(threshold="apoz", **only).apply(model, X))
    assert found == np.flatnonzero(apoz <= limit).tolist() and len(found) == 8
    assert kept(PruneNeurons(threshold=0.55, **only).apply(model, X)) == [0, 1, 2, 3, 4, 5]
    found = kept(PruneNeurons(threshold=4.0, score="l2", **only).apply(model))
    assert found == [4, 5, 6, 7, 8, 9]
    # Never a layer without units.
    assert kept(PruneNeurons(threshold=99, score="l1", **only).apply(model)) == [9]
    # Nothing to remove: a copy.
    same = PruneNeurons(threshold=0.0, score="l2").apply(model)
    np.testing.assert_array_equal(same(X), model(X))


def test_threshold_zero_takes_the_filters_that_a_group_lasso_has_emptied():
    model = chain()
    kernel, bias = model.get_layer("a").get_weights()
    kernel[:, [2, 5]] = 0
    model.get_layer("a").set_weights([kernel, bias + 1])
    small = PruneNeurons(threshold=0.0, score="l2", layers=["a"]).apply(model)
    assert small.get_layer("a").units == 8
    # What their biases gave the next layer is in its bias now. Terms of size 2 are added in
    # another order, and an output near zero keeps their rounding.
    np.testing.assert_allclose(small(X), model(X), rtol=1e-5, atol=1e-6)


def test_layers_that_are_added_up_go_together():
    inputs = keras.Input((4,))
    a = layers.Dense(6, "relu", name="a")(inputs)
    b = layers.Dense(6, "relu", name="b")(a)
    x = layers.Dense(2, name="logits")(layers.Add()([a, b]))
    model = keras.Model(inputs, x)
    small = PruneNeurons(0.5, score="l1").apply(model)
    assert small.get_layer("a").units == small.get_layer("b").units == 3
    total = sum(unit_scores(model, score="l1")[name] for name in "ab")
    best = np.sort(np.argsort(total)[3:])
    for name, rows in (("a", slice(None)), ("b", best)):
        want = model.get_layer(name).get_weights()[0][rows][:, best]
        np.testing.assert_array_equal(small.get_layer(name).get_weights()[0], want)
    with pytest.raises(ValueError, match=r"names some of \['a', 'b'\].*Name \['b'\] too"):
        PruneNeurons(0.5, score="l1", layers=["a"]).apply(model)
    with pytest.raises(ValueError, match="no layer to remove units from"):
        PruneNeurons(0.5, score="l1", layers=lambda layer: layer.name == "a").apply(model)


def test_only_a_relu_makes_zeros_to_count():
    for activation in ("sigmoid", "gelu", "leaky_relu"):
        with pytest.raises(ValueError, match=rf"\['a'\] have activation '{activation}'.*l2"):
            PruneNeurons(0.5).apply(chain(activation=activation), X)
    with pytest.raises(ValueError, match=r"\['a'\] have activation 'LeakyReLU'"):
        model = chain(activation=None)
        model = keras.Sequential([keras.Input((1,)), model.layers[0], layers.LeakyReLU(),
                                  layers.Dense(2)])  # fmt: skip
        PruneNeurons(0.5).apply(model, X)
    # Linear units are passed over, unless they are named.
    model = chain(activation=None)
    assert [layer.units for layer in PruneNeurons(0.5).apply(model, X).layers] == [10, 2, 2]
    with pytest.raises(ValueError, match=r"\['a'\] have no activation"):
        PruneNeurons(0.5, layers=["a"]).apply(model, X)


def test_errors():
    for settings in ({}, {"amount": 0.3, "threshold": 0.1}):
        with pytest.raises(ValueError, match="Give one of `amount` and `threshold`"):
            PruneNeurons(**settings)
    with pytest.raises(ValueError, match="`threshold` must be .* a number >= 0, got nan"):
        PruneNeurons(threshold=float("nan"))
    for amount in (0, 1, 30, "0.3", True):
        with pytest.raises(ValueError, match=r"`amount` is the share .* \(0, 1\), got"):
            PruneNeurons(amount)
    with pytest.raises(ValueError, match="`score` must be one of"):
        PruneNeurons(0.3, score="taylor")
    with pytest.raises(ValueError, match="is a rule for score=\"apoz\", got score='l1'"):
        PruneNeurons(threshold="apoz", score="l1")
    with pytest.raises(ValueError, match='`threshold` must be "apoz" or a number >= 0'):
        PruneNeurons(threshold=-1.0)
    model = chain()
    with pytest.raises(ValueError, match="names 'c', which the model does not have.*'a', 'b'"):
        PruneNeurons(0.3, score="l1", layers=["c"]).apply(model)
    with pytest.raises(ValueError, match="'logits', whose units must stay: it makes the model's"):
        PruneNeurons(0.3, score="l1", layers=["logits"]).apply(model)
    with pytest.raises(ValueError, match="give some, `x`"):
        PruneNeurons(0.3).apply(model)


def test_frozen_and_hashable():
    assert PruneNeurons(0.3, layers=["a"]) == PruneNeurons(0.3, layers=("a",))
    assert len({PruneNeurons(0.3), PruneNeurons(0.3)}) == 1


@pytest.mark.skipif(not LEGACY, reason="Recipe needs tf_keras")
def test_it_is_a_stage(tools):
    model, stage = tools.model(), PruneNeurons(0.5)
    images = tf.data.Dataset.from_tensor_slices(tools.data()[0]).batch(32)
    context = Context(epochs=1, steps=4, batches=images)
    assert stage.check(model, context) == ["conv_a", "conv_b", "hidden"]
    plain = tools.run_stage(stage, model, context, tools.dataset())
    assert plain.get_layer("conv_b").filters == 4 and plain.get_layer("hidden").units == 6
    # Trained: not what `apply` alone gives.
    first = stage.apply(model, images).get_layer("hidden").get_weights()[0]
    assert np.abs(plain.get_layer("hidden").get_weights()[0] - first).max() > 1e-4
    names = stage.check(model, context)
    assert stage.broken(kernels(model), kernels(plain), names, context) == []
    (one, *_) = stage.broken(kernels(model), kernels(model), names, context)
    assert one == "layer 'conv_a': still has all of its 8 units"


def test_as_a_stage_it_tells_layers_of_one_name_apart(rng):
    """Of models inside a model; `out`, of that name itself, is called after them."""

    def part(units, name):
        stack = [layers.Dense(units, "relu", name="dense"), layers.Dense(6, name=f"{name}_out")]
        return keras.Sequential([keras.Input((6,)), *stack], name=name)

    parts = [part(8, "a"), part(5, "b"), layers.Dense(7, "relu", name="dense")]
    model = keras.Sequential([keras.Input((6,)), *parts, layers.Dense(3, name="out")])
    x = rng.uniform(size=(32, 6)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((x, np.arange(32) % 3)).batch(16)
    recipe = Recipe([PruneNeurons(0.5, score="l1")])
    (stage,) = recipe.run(model, data, epochs=1, verbose=0).stages
    assert stage.broken == [] and len(stage.layers) == 6
    assert all(row["sparsity_before"] is not None for row in stage.layers)
    found = kernels(model)
    sizes = [kernel.values.shape[1] for key, kernel in found.items() if "dense" in key[0]]
    assert sorted(sizes) == [5, 7, 8] and len(found) == 6


def test_pruned_models_train_adversarially_are_saved_and_exported(blobs, tmp_path):
    x, y = blobs(24)
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(),
         layers.Dense(3)]
    )  # fmt: skip
    small = PruneNeurons(0.5).apply(model, x)
    trainer = kr.AdversarialTraining(small, kr.attacks.FGSM(eps=0.05))
    trainer.compile("adam", jit_compile=False)
    trainer.fit(x, y, verbose=0)
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(again(x), small(x))
    exported = kr.export.tflite(small, tmp_path / "small.tflite", check=x)
    assert exported.bytes < 5000


def test_a_promise_is_to_the_layers_that_are_tied_and_not_to_each():
    """All that goes may be of one of them."""
    inputs = keras.Input((4,))
    parts = [layers.Dense(4, "relu", name=name)(inputs) for name in "ab"]
    c = layers.Dense(8, "relu", name="c")(inputs)
    out = layers.Dense(2, name="out")(layers.Add()([layers.Concatenate()(parts), c]))
    model = keras.Model(inputs, out)
    # The units of b, and those of c that they are added to, are the smallest.
    kernel, bias = model.get_layer("b").get_weights()
    model.get_layer("b").set_weights([kernel / 1000, bias])
    kernel, bias = model.get_layer("c").get_weights()
    kernel[:, 4:] /= 1000
    model.get_layer("c").set_weights([kernel, bias])
    stage, context = PruneNeurons(0.3, score="l1"), Context(1, 1)
    chosen = stage.check(model, context)
    assert sorted(chosen) == ["a", "b", "c"]
    small = stage.apply(model)
    assert [small.get_layer(name).units for name in "abc"] == [4, 2, 6]
    assert stage.broken(kernels(model), kernels(small), chosen, context) == []
    (told,) = stage.broken(kernels(model), kernels(model), chosen, context)
    assert told.startswith("layers [") and told.endswith("still have all of their 8 units")


@pytest.mark.parametrize("what", [PruneNeurons(0.5, score="l2").apply, remove_dead])
def test_the_callers_random_numbers_stay(what):
    model, state = chain(), random.getstate()
    what(model)
    assert random.getstate() == state
