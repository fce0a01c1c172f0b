"""Recipes whose stages change the layers: under both Kerases, and before TF-MOT's."""

import numpy as np
import pytest

import keras_robust as kr
from keras_robust._keras import LEGACY, keras
from keras_robust.compress import (
    Binarize,
    Cluster,
    Factorize,
    Prune,
    PruneNeurons,
    Quantize,
    Recipe,
    Separate,
)

RESHAPING = [Separate(), Factorize(rank={"hidden": 3}), PruneNeurons(0.25)]


def kinds(model):
    return [type(layer).__name__ for layer in model.layers if layer.weights]


def run(stages, tools, **settings):
    model = tools.model()
    before = model.get_weights()
    result = Recipe(stages).run(model, tools.dataset(), epochs=1, verbose=0, **settings)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    return result


def test_stages_that_change_the_layers_and_train_adversarially(tools):
    fine_tune = lambda m: kr.AdversarialTraining(m, kr.attacks.FGSM(0.03))  # noqa: E731
    result = run(RESHAPING, tools, fine_tune=fine_tune)
    assert [stage.name for stage in result.stages] == ["separated", "factorized", "shrunk"]
    separated, factorized, shrunk = (stage.model for stage in result.stages)
    assert "DepthwiseConv2D" in kinds(separated) and "DepthwiseConv2D" in kinds(shrunk)
    assert kinds(factorized).count("Dense") == kinds(separated).count("Dense") + 1
    counts = [kr.compress.count(model).parameters for model in result.models.values()]
    assert counts == sorted(counts, reverse=True) and counts[-1] < 0.6 * counts[0]
    assert all("robust_accuracy" in stage.history for stage in result.stages)
    x, y = tools.data(64)
    assert np.mean(np.argmax(shrunk(x), axis=1) == y) > 0.35  # of 4 classes, after few steps
    assert "factorized" in result.summary()
    again = run(RESHAPING, tools, fine_tune=fine_tune)
    for one, other in zip(shrunk.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.skipif(not LEGACY, reason="TF-MOT needs tf_keras")
def test_then_pruned_clustered_and_quantized(tools, tmp_path):
    stages = [PruneNeurons(0.25), Prune(0.5), Cluster(8), Quantize()]
    result = run(stages, tools)
    assert not any(stage.broken for stage in result.stages)
    assert result.stages[1].sparsity >= 0.49
    written = kr.export.tflite(result.model, tmp_path / "small.tflite")
    plain = kr.export.tflite(result.original, tmp_path / "plain.tflite")
    assert written.bytes < plain.bytes


def test_later_stages_are_checked_on_the_layers_that_earlier_ones_make(tools):
    def never(model):
        raise AssertionError("training started")

    first = Factorize(rank={"hidden": 3})
    with pytest.raises(ValueError, match="rank"):
        Recipe([PruneNeurons(0.9, layers=["hidden"]), first]).run(
            tools.model(), tools.dataset(), fine_tune=never, verbose=0
        )
    with pytest.raises(ValueError, match="'hidden_"):
        Recipe([Separate(), PruneNeurons(0.5, layers=["hidden_out"])]).run(
            tools.model(), tools.dataset(), fine_tune=never, verbose=0
        )


@pytest.mark.skipif(not LEGACY, reason="TF-MOT needs tf_keras")
@pytest.mark.parametrize(
    ("stages", "match"),
    [
        ([Prune(0.5), Factorize(rank=2)] if LEGACY else [], "zeros would be lost"),
        ([Prune(0.5), PruneNeurons(0.5)] if LEGACY else [], "weights of the zeros again"),
        ([Cluster(4), Prune(0.5), Separate()] if LEGACY else [], "Prune after Cluster"),
        ([Quantize(), PruneNeurons(0.5)] if LEGACY else [], "no float layers left"),
    ],
)
def test_orders_that_lose_what_was_made(stages, match):
    with pytest.raises(ValueError, match=match):
        Recipe(stages)


def test_kernels_of_models_inside_are_reported_and_checked(tools):
    inputs = keras.Input(tools.shape)
    nested = keras.Model(inputs, tools.model()(inputs))
    result = Recipe([Binarize(["hidden"])]).run(nested, tools.dataset(64), epochs=1, verbose=0)
    found = {row["name"]: row["distinct_after"] for row in result.stages[0].layers}
    assert set(found) == {"conv_a", "conv_b", "hidden", "out"} and found["hidden"] == 2
    assert found["conv_b"] > 2 and "conv_b" in result.summary()


def test_a_subclassed_model_is_refused(tools):
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="subclassed|Build it"):
        Recipe([PruneNeurons(0.5)]).run(Own(), tools.dataset(), verbose=0)
