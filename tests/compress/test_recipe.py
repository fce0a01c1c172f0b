import json
import random

import numpy as np
import pytest
import tensorflow as tf

from keras_robust._keras import LEGACY, keras
from keras_robust.attacks import FGSM
from keras_robust.compress import (
    Cluster,
    Factorize,
    Prune,
    PruneByScores,
    PruneNeurons,
    Quantize,
    Recipe,
    Separate,
)
from keras_robust.training import AdversarialTraining

if not LEGACY:
    pytest.skip("compress needs tf_keras", allow_module_level=True)

RESHAPING = (Separate(), Factorize(rank=2), PruneNeurons(0.5))
ALL = [Prune(0.75), Cluster(6, init="random"), Quantize("int8")]


def run(tools, seed=0):
    model = tools.model()
    before = model.to_json(), model.get_weights(), [layer.trainable for layer in model.layers]
    seen = []
    result = Recipe(ALL).run(
        model,
        tools.dataset(),
        epochs=[2, 1, 1],
        validation_data=tools.dataset(64),
        fine_tune=lambda m: AdversarialTraining(m, FGSM(eps=0.03)),
        verbose=0,
        seed=seed,
        on_stage=lambda stage: seen.append(stage.name),
    )
    after = model.to_json(), model.get_weights(), [layer.trainable for layer in model.layers]
    return result, before, after, seen


@pytest.fixture(scope="module")
def full(tools):
    return run(tools)


def test_the_users_model_is_untouched(full):
    result, before, after, _ = full
    assert before[0] == after[0] and before[2] == after[2]
    for old, new in zip(before[1], after[1], strict=True):
        assert np.array_equal(old, new)
    variables = {id(w) for w in result.original.weights}
    for stage in result.stages:
        assert not variables & {id(w) for w in stage.model.weights}


def test_zeros_and_clusters_last_through_all_stages(full):
    result, *_ = full
    assert [stage.name for stage in result.stages] == ["pruned", "clustered", "quantized"]
    zero = None
    for stage in result.stages:
        assert not stage.broken
        for row in stage.layers:
            assert row["sparsity_after"] >= 0.75 - 1 / row["weights"]
            assert stage.name == "pruned" or row["distinct_after"] <= 6
        if stage.name != "quantized":
            kernel = stage.model.get_layer("hidden").kernel.numpy()
            assert zero is None or np.all(kernel[zero] == 0)
            zero = kernel == 0
    # The tensor that the shipped model multiplies with, taken from a forward pass.
    wrapper = result.model.get_layer("quant_hidden")
    result.model(np.zeros((1, 8, 8, 1), "float32"), training=False)
    used = wrapper.layer.kernel.numpy()
    assert np.all(used[zero] == 0) and np.unique(used).size <= 6


def test_result_says_what_was_done(full):
    result, _, _, seen = full
    assert seen == ["pruned", "clustered", "quantized"]
    assert list(result.models) == ["original", *seen]
    assert result.model is result.models["quantized"]
    told = json.loads(json.dumps(result.to_dict()))["stages"]
    assert [stage["name"] for stage in told] == seen
    assert [len(stage["history"]["loss"]) for stage in told] == [2, 1, 1]
    assert "val_robust_accuracy" in told[0]["history"]
    assert told[0]["layers"][0]["weights"] == 72 and told[0]["layers"][0]["sparsity_before"] == 0
    lines = result.summary().splitlines()
    assert lines[0].split() == ["stage", "layer", "weights", "sparsity", "values", "int8"]
    assert len(lines) == 2 + 3 * 4 and "0.000 -> 0.750" in lines[2]


def test_same_seed_same_result(tools, full):
    again, *_ = run(tools)
    for stage, other in zip(full[0].stages, again.stages, strict=True):
        for old, new in zip(stage.model.get_weights(), other.model.get_weights(), strict=True):
            assert np.array_equal(old, new), stage.name


def test_random_states_are_left_as_found(tools):
    def draw():
        return random.random(), np.random.rand(), float(tf.random.uniform([]))

    def seed():
        random.seed(1)
        np.random.seed(1)
        tf.random.set_seed(1)

    seed()
    draw()
    expected = draw()
    seed()
    draw()
    Recipe([Prune(0.5)]).run(tools.model(), tools.dataset(), epochs=1, verbose=0)
    assert draw() == expected


def test_plain_training_learns_and_speaks(tools, capsys):
    result = Recipe([Prune(0.3)]).run(
        tools.model(), tools.dataset(), epochs=6, optimizer=keras.optimizers.Adam(0.01)
    )
    assert result.stages[0].history["accuracy"][-1] > 0.9
    spoken = capsys.readouterr().out
    assert "[1/1] prune: 4 layers, 6 x 4 steps" in spoken
    assert "[1/1] pruned: sparsity 0.300" in spoken and "Epoch 6/6" in spoken


def test_each_stage_has_its_own_learning_rate(tools):
    trained = []

    def untrained(model):
        trained.append(model)
        model.fit = lambda *_, **__: keras.callbacks.History()
        return model

    layers = [keras.Input(tools.shape), keras.layers.Flatten(), keras.layers.Dense(tools.classes)]
    stages, model = [Prune(0.0), Cluster(4), Quantize("int8")], keras.Sequential(layers)
    Recipe(stages).run(model, tools.dataset(32), fine_tune=untrained, verbose=0)
    rates = [float(model.optimizer.learning_rate) for model in trained]
    assert rates == pytest.approx([1e-3, 1e-4, 3e-4])


def test_label_vectors_and_unknown_cardinality(tools):
    x, y = tools.data(64)
    dataset = tf.data.Dataset.from_tensor_slices((x, tf.one_hot(y, 4))).batch(32)
    dataset = dataset.filter(lambda x, y: True)
    optimizer = keras.optimizers.Adam(0.01)
    result = Recipe([Prune(0.6)]).run(
        tools.model(), dataset, epochs=14, verbose=0, optimizer=optimizer
    )
    assert result.stages[0].sparsity == pytest.approx(0.6, abs=1e-3)
    assert result.stages[0].history["accuracy"][-1] > 0.8


def test_broken_promise_is_kept_in_the_stage_and_warned_of(tools):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    with pytest.warns(UserWarning, match="'hidden': 0 of 384 weights are zero"):
        result = Recipe([Prune(0.5, begin=0.5)]).run(
            tools.model(), tools.dataset(), epochs=4, verbose=0, callbacks=[Stop()]
        )
    assert len(result.stages[0].broken) == 4 and "! layer 'hidden'" in result.summary()


def test_mixed_precision_works_where_tfmot_does_and_is_refused_else(tools):
    policy = keras.mixed_precision.global_policy()
    try:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
        model, dataset = tools.model(), tools.dataset(64)
        result = Recipe([Prune(0.5)]).run(model, dataset, epochs=1, verbose=0)
        assert not result.stages[0].broken
        for stage in (Cluster(4), Quantize()):
            name = type(stage).__name__
            with pytest.raises(ValueError, match=f"{name} works in float32 only, but the global"):
                Recipe([Prune(0.5), stage]).run(model, dataset, fine_tune=Never())
    finally:
        keras.mixed_precision.set_global_policy(policy)


@pytest.mark.parametrize(
    ("stages", "error", "match"),
    [
        ([], ValueError, "`stages` is empty"),
        (Prune(0.5), TypeError, r"must be a list, write Recipe\(\[Prune\(sparsity=0.5"),
        ([Prune], TypeError, r"Write Prune\(0.9\), not Prune"),
        (["prune"], TypeError, "takes objects of Separate, .* Quantize, got 'prune'"),
        ([Prune(0.5), Prune(0.9)], ValueError, "Prune twice"),
        ([Cluster(4), Prune(0.5)], ValueError, "Prune after Cluster: pruning would"),
        ([Quantize(), Prune(0.5)], ValueError, "Prune after Quantize: int8 is the last step"),
        ([Quantize(), Cluster(4)], ValueError, "Cluster after Quantize: int8 is the last"),
    ],
)
def test_recipes_that_cannot_work(stages, error, match):
    with pytest.raises(error, match=match):
        Recipe(stages)


class Never:
    """A `fine_tune` that tells when training was about to start."""

    def __call__(self, model):
        raise AssertionError("training started")


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (dict(epochs=0), ValueError, "`epochs` must be at least 1"),
        (dict(epochs=[1, 1]), ValueError, "2 entries, but the recipe has 1 stages"),
        (dict(epochs=1.5), TypeError, "whole number, or one for each stage"),
        (dict(verbose=3), ValueError, "`verbose` must be 0, 1 or 2"),
        (dict(fine_tune="fit"), TypeError, "`fine_tune` must be a function"),
        (dict(model=lambda x: x), TypeError, "must be a Keras model, got function"),
        (dict(stages=[Prune(0.5, layers=["x"])]), ValueError, r"names \['x'\]"),
        (dict(train_ds=[1, 2]), TypeError, "must be a tf.data.Dataset"),
    ],
)
def test_errors_come_before_training(tools, change, error, match):
    call = dict(model=tools.model(), train_ds=tools.dataset(), fine_tune=Never(), verbose=0)
    call.update(change)
    recipe = Recipe(call.pop("stages", [Prune(0.5)]))
    with pytest.raises(error, match=match):
        recipe.run(call.pop("model"), call.pop("train_ds"), **call)


def test_softmax_models_are_refused(tools):
    model = keras.Sequential([tools.model(), keras.layers.Softmax()])
    with pytest.raises(ValueError, match="ends in a softmax"):
        Recipe([Prune(0.5)]).run(model, tools.dataset())


def test_trainers_that_do_not_train_the_model_are_refused(tools):
    recipe = Recipe([Prune(0.5)])
    with pytest.raises(TypeError, match="must return a Keras model.*got NoneType"):
        recipe.run(tools.model(), tools.dataset(), fine_tune=lambda m: None, verbose=0)
    with pytest.raises(ValueError, match="does not train the model it was given"):
        recipe.run(tools.model(), tools.dataset(), fine_tune=lambda m: tools.model(), verbose=0)

    def compiled(model):
        model.compile("adam", "mse")
        return model

    with pytest.raises(ValueError, match="`optimizer` is for trainers that are not compiled"):
        recipe.run(tools.model(), tools.dataset(), fine_tune=compiled, optimizer="adam", verbose=0)


def test_each_pair_that_is_refused_says_why():
    again, last = "choose zeros among the zeros of the first", "int8 is the last step"
    scores, neurons = PruneByScores(0.5), PruneNeurons(0.5)
    for stages, why in (
        ([Prune(0.5), scores], again),
        ([scores, Prune(0.5)], again),
        ([scores, PruneByScores(0.9)], "PruneByScores twice"),
        ([Cluster(4), neurons], "would make different values of the shared ones again"),
        ([Cluster(4), scores], "set clustered weights to zero and train the rest apart"),
        ([Quantize(), scores], f"{last}; the pruned weights would be float again"),
        ([Prune(0.5), neurons], "would make weights of the zeros again"),
        ([scores, neurons], "would make weights of the zeros again"),
        *(([Quantize(), new], f"{last}; it has no float layers") for new in RESHAPING),
        *(([Cluster(4), new], "the shared values would be lost") for new in RESHAPING[:2]),
        *(([scores, new], "the zeros would be lost") for new in RESHAPING[:2]),
        *(([Prune(0.5), new], "the zeros would be lost") for new in RESHAPING[:2]),
    ):
        first, second = (type(stage).__name__ for stage in stages)
        head = "" if first == second else f"has {second} after {first}: "
        with pytest.raises(ValueError, match=f"{head}.*{why}"):
            Recipe(stages)
