"""Epochs from scratch as the paper counts them, and the three rows."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.compress import (
    Prune,
    PruneNeurons,
    scratch_baselines,
    scratch_budget,
    scratch_table,
)
from keras_robust.compress._masks import masks_of, value_of


def make_model(units=8):
    layers = [keras.Input((6,)), keras.layers.Dense(units, "relu", name="hidden")]
    return keras.Sequential([*layers, keras.layers.Dense(3, name="out")])


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    x = generator.uniform(size=(64, 6)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((x, np.argmax(x[:, :3], 1).astype("int32"))).batch(32)


def test_epochs_of_the_paper():
    # Liu et al., VGG-16-A on CIFAR-10: 313M and 206M multiply-adds, 160 epochs.
    budget = scratch_budget(313e6, 206e6, 160)
    assert (budget.scratch_e, budget.scratch_b) == (160, 243)
    full = make_model()
    half = PruneNeurons(0.5, score="l1").apply(full)
    assert scratch_budget(full, half, 3).scratch_b == 6
    sparse = Prune(0.75).apply(full)
    assert scratch_budget(full, sparse, 3).ratio == 1.0
    assert scratch_budget(full, sparse, 3, zeros=True).scratch_b == 12
    assert scratch_budget(full, Prune({"out": 0.5}).apply(full), 10, zeros=True).ratio == 72 / 60


def test_zeros_of_a_separable_layer_count_for_their_own_kernel():
    layer = keras.layers.SeparableConv2D(4, 3, padding="same", name="separable")
    model = keras.Sequential([keras.Input((5, 5, 2)), layer])
    depthwise, pointwise, bias = layer.get_weights()
    pointwise[..., :2] = 0
    layer.set_weights([depthwise, pointwise, bias])
    # 9 x 2 products of the depthwise kernel at each place, 2 x 4 of the other, half with zeros.
    assert scratch_budget(25 * 26, model, 1, zeros=True).ratio == pytest.approx(26 / 22)


def test_three_rows_by_the_same_architecture(data):
    full = make_model()
    pruned = PruneNeurons(0.5, score="l1").apply(full)
    before = pruned.get_weights()
    rows = scratch_baselines(full, pruned, data, data, epochs=1)
    assert [(row.name, row.epochs) for row in rows] == [
        ("fine-tuned", 0),
        ("Scratch-E", 1),
        ("Scratch-B", 2),
    ]
    assert rows[0].model is pruned
    for old, new in zip(before, pruned.get_weights()):
        np.testing.assert_array_equal(old, new)
    for row in rows[1:]:
        assert [layer.units for layer in row.model.layers] == [4, 3]
        assert np.abs(row.model.get_weights()[0] - before[0]).max() > 0.1
    assert "Scratch-B" in scratch_table(rows) and "accuracy" in scratch_table(rows)


def test_zeros_are_part_of_the_architecture(data):
    full = make_model()
    pruned = Prune(0.5).apply(full)
    with pytest.raises(ValueError, match="say keep_zeros=True"):
        scratch_baselines(full, pruned, data, data, epochs=1)
    rows = scratch_baselines(full, pruned, data, data, epochs=1, keep_zeros=True)
    assert rows[2].epochs == 2
    zeros = value_of(pruned.layers[0].kernel) == 0
    for row in rows[1:]:
        np.testing.assert_array_equal(value_of(row.model.layers[0].kernel) == 0, zeros)
        np.testing.assert_array_equal(masks_of(row.model)["hidden"], ~zeros)


def test_the_trainer_sees_the_epochs_of_each_row_and_the_optimizer(data):
    full = make_model()
    pruned = PruneNeurons(0.5, score="l1").apply(full)
    trainers, epochs = [], []

    class Counted(kr.AdversarialTraining):
        def fit(self, *arguments, **settings):
            history = super().fit(*arguments, **settings)
            epochs.append(len(history.epoch))
            return history

    def fine_tune(model):
        trainers.append(Counted(model, kr.attacks.FGSM(0.02)))
        return trainers[-1]

    rows = scratch_baselines(
        full,
        pruned,
        data,
        data,
        epochs=2,
        fine_tune=fine_tune,
        optimizer=keras.optimizers.SGD(0.125),
    )
    # Half of the multiply-adds, so twice the epochs; what was fine-tuned is only measured.
    assert epochs == [row.epochs for row in rows[1:]] == [2, 4]
    assert len(trainers) == 3 and all("robust_accuracy" in row.measured for row in rows)
    for trainer in trainers:
        assert isinstance(trainer.optimizer, keras.optimizers.SGD)
        assert float(trainer.optimizer.learning_rate) == 0.125


def test_random_weights_come_from_the_seed(data):
    full = make_model()
    pruned = PruneNeurons(0.5, score="l1").apply(full)

    def untrained(model):
        """Draws where it would train."""
        model.fit = lambda *_, **__: drawn.append(float(tf.random.uniform([])))
        model.evaluate = lambda *_, **__: {"loss": 0.0}
        return model

    found = {}
    for name, seed in (("one", 5), ("same", 5), ("other", 8)):
        drawn = []
        rows = scratch_baselines(full, pruned, data, data, epochs=1, fine_tune=untrained, seed=seed)
        found[name] = [row.model.get_weights()[0] for row in rows[1:]] + drawn
    for value, again, different in zip(*found.values(), strict=True):
        np.testing.assert_array_equal(value, again)
        assert np.abs(value - different).max() > 0.01


def test_errors():
    with pytest.raises(ValueError, match="`epochs` must be a whole number >= 1"):
        scratch_budget(2, 1, 0)
    with pytest.raises(ValueError, match="`pruned` has multiply-adds > 0, got 0"):
        scratch_budget(2, 0, 1)


def test_data_is_looked_at_as_by_a_recipe(data, ill_fitting):
    full, pruned = make_model(8), make_model(4)
    for train, validation, match in ill_fitting(data):
        with pytest.raises(ValueError, match=match):
            scratch_baselines(full, pruned, train, validation, epochs=1)
