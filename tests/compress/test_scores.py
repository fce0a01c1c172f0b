"""Scores move as HYDRA's would, masks follow them, weights only later."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.compress import PruneByScores
from keras_robust.compress import _scores as scores_file
from keras_robust.compress._kernels import Kernel
from keras_robust.compress._masks import find_kernels, value_of
from keras_robust.compress._stage import Context

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def make_model():
    start = keras.initializers.GlorotUniform(seed=3)
    layer = keras.layers.Dense(3, kernel_initializer=start, bias_initializer="ones", name="out")
    return keras.Sequential([keras.Input((36,)), layer])


def hydra(weights, bias, x, y, rate, momentum, steps, kept):
    """The paper's loop in float64: the gradient of the scores, straight through their top.

    Without momentum exactly so. Ours turns with a score that crosses zero; in a plain optimizer
    of the scores it would push the magnitude up again.
    """
    scores = scores_file.initial_scores(weights).astype("float64")
    velocity = np.zeros_like(scores)
    for _ in range(steps):
        mask = np.zeros(scores.size)
        mask[np.argsort(-np.abs(scores).ravel(), kind="stable")[:kept]] = 1
        mask = mask.reshape(scores.shape)
        logits = x @ (weights * mask) + bias
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        p[np.arange(len(y)), y] -= 1
        velocity = momentum * velocity - rate * (x.T @ p / len(y) * weights)
        scores += velocity * np.where(scores >= 0, 1, -1)
    return scores


@pytest.mark.parametrize(
    ("momentum", "jit", "rate"), [(0.0, False, 1.0), (0.9, True, 1.0), (0.0, False, 0.4)]
)
def test_scores_take_the_steps_of_the_paper(blobs, momentum, jit, rate):
    x, y = blobs()
    x = x.reshape(-1, 36)
    model, context = make_model(), Context(6, 1)
    stage = PruneByScores(0.6, share=0.99, rate=rate)
    wrapped = stage.wrap(model, context)
    wrapped.compile(keras.optimizers.SGD(0.5, momentum=momentum), LOSS, jit_compile=jit)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(96)
    callbacks = stage.callbacks(wrapped, context)
    wrapped.fit(data, epochs=6, callbacks=callbacks, verbose=0, shuffle=False)
    scored = find_kernels(wrapped)["out"].constraint
    weights, bias = (w.astype("float64") for w in model.get_weights())
    expected = hydra(
        weights, bias, x.astype("float64"), y, 0.5 * rate, momentum, 6, round(0.4 * 108)
    )
    start = scores_file.initial_scores(weights)
    assert np.abs(expected - start).max() > 0.01
    np.testing.assert_allclose(scored.scores.numpy(), expected, atol=2e-6)
    # The masks are not the first ones, and the weights and the bias have not moved.
    kernel, new_bias = wrapped.get_weights()
    np.testing.assert_array_equal(kernel[kernel != 0], model.get_weights()[0][kernel != 0])
    np.testing.assert_array_equal(new_bias, model.get_weights()[1])
    assert np.any((kernel != 0) != (scores_file.largest(start, scored.kept)))


def test_adams_step_is_that_of_the_scores(blobs):
    """Adam divides by the gradient's size, so sign(w) times its step is the scores' own."""
    x, y = blobs()
    x = x.reshape(-1, 36)
    model, context = make_model(), Context(1, 1)
    stage = PruneByScores(0.5, share=0.99)
    wrapped = stage.wrap(model, context)
    wrapped.compile(keras.optimizers.Adam(0.01, epsilon=1e-12), LOSS)
    callbacks = stage.callbacks(wrapped, context)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(96)
    wrapped.fit(data, callbacks=callbacks, verbose=0, shuffle=False)
    scored = find_kernels(wrapped)["out"].constraint
    moved = scored.scores.numpy() - scores_file.initial_scores(model.get_weights()[0])
    # Adam's first step is as long as the learning rate, up or down.
    np.testing.assert_allclose(np.abs(moved), 0.01, rtol=1e-3)


def test_masks_are_fixed_then_and_weights_train(blobs):
    x, y = blobs()
    data = tf.data.Dataset.from_tensor_slices((x.reshape(-1, 36), y)).batch(32)
    model = make_model()
    before = model.get_weights()
    attack = kr.attacks.FGSM(eps=0.05)
    stage = PruneByScores(0.7)
    pruned = stage.apply(
        model,
        data,
        epochs=4,
        fine_tune=lambda m: kr.AdversarialTraining(m, attack),
        optimizer=keras.optimizers.Adam(0.02),
    )
    kernel, bias = pruned.get_weights()
    assert np.count_nonzero(kernel) == round(0.3 * 108)
    assert np.abs(kernel - before[0])[kernel != 0].min() > 1e-4 and np.abs(bias - 1).min() > 1e-4
    assert np.mean(np.argmax(pruned(x.reshape(-1, 36)), 1) == y) > 0.8
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)
    assert not pruned.layers[-1].kernel.constraint
    after = {0: Kernel("out", "kernel", kernel)}
    assert stage.broken({}, after, ["out"], None) == []
    told = PruneByScores({"out": 0.9}).broken({}, after, ["out"], None)
    assert told == ["layer 'out': 76 of 108 weights are zero, sparsity 0.9 asks for 97"]


def test_layers_and_validation_data_of_apply(blobs):
    x, y = blobs()
    data = tf.data.Dataset.from_tensor_slices((x.reshape(-1, 36), y)).batch(32)
    layers, starts = keras.layers, [keras.initializers.GlorotUniform(seed=i) for i in range(2)]
    hidden = layers.Dense(8, "relu", kernel_initializer=starts[0], name="hidden")
    out = layers.Dense(3, kernel_initializer=starts[1], name="out")
    model = keras.Sequential([keras.Input((36,)), hidden, out])
    trained = []

    pruned = PruneByScores(0.5, layers=["out"]).apply(
        model, data, fine_tune=lambda m: trained.append(m) or m, validation_data=data.take(1)
    )
    kernels = [value_of(find_kernels(pruned)[name]) for name in ("hidden", "out")]
    assert np.all(kernels[0] != 0) and np.count_nonzero(kernels[1]) == 12
    assert np.abs(kernels[0] - model.get_weights()[0]).max() > 1e-4
    history = trained[0].history.history
    measured = trained[0].evaluate(data.take(1), verbose=0, return_dict=True)
    assert history["val_loss"][-1] == pytest.approx(measured["loss"], rel=1e-4)


def test_what_is_random_comes_from_the_seed_of_apply(blobs):
    x, y = blobs()
    data, drawn = tf.data.Dataset.from_tensor_slices((x.reshape(-1, 36), y)).batch(32), []

    def untrained(model):
        """Draws where it would train."""
        model.fit = lambda *_, **__: drawn.append(float(tf.random.uniform([])))
        return model

    for seed in (1, 1, 2):
        PruneByScores(0.5).apply(make_model(), data, fine_tune=untrained, seed=seed)
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("jit", [False, True])
def test_constraints_of_the_user_hold_when_weights_train(rng, jit):
    most = keras.constraints.MaxNorm(0.8)
    bounds = {"kernel_constraint": most, "bias_constraint": "non_neg"}
    model = keras.Sequential([keras.Input((36,)), keras.layers.Dense(3, **bounds, name="out")])
    kernel = rng.normal(size=(36, 3))
    model.set_weights([kernel / np.linalg.norm(kernel, axis=0), np.full(3, 0.1)])
    stage, context = PruneByScores(0.5), Context(4, 1)
    wrapped = stage.wrap(model, context)
    wrapped.compile(keras.optimizers.SGD(1.0), LOSS, jit_compile=jit)
    # One class alone: the biases of the others would fall below zero.
    data = (rng.uniform(size=(32, 36)).astype("float32"), np.zeros(32, "int32"))
    data = tf.data.Dataset.from_tensor_slices(data).batch(32)
    callbacks = stage.callbacks(wrapped, context)
    wrapped.fit(data, epochs=4, callbacks=callbacks, verbose=0, shuffle=False)
    after, bias = stage.strip(wrapped, model).get_weights()
    assert bias.min() == 0 and bias.max() > 0.2
    assert np.linalg.norm(after, axis=0).max() <= 0.8 + 1e-5
    assert np.count_nonzero(after) == 54


def test_first_scores_are_scaled_by_layer(rng):
    weights = rng.normal(size=(3, 3, 4, 5)).astype("float32")
    scores = scores_file.initial_scores(weights)
    assert np.isclose(np.abs(scores).max(), np.sqrt(6 / 36))
    np.testing.assert_allclose(scores / scores.flat[0], weights / weights.flat[0], rtol=1e-5)
    assert not scores_file.initial_scores(np.zeros((2, 2), "float32")).any()


def test_kernels_of_transposed_convolutions_have_their_inputs_last():
    layers = keras.layers
    model = keras.Sequential([keras.Input((4, 4, 2)), layers.Conv2DTranspose(5, 3, name="back")])
    wrapped = PruneByScores(0.5).wrap(model, Context(1, 1))
    scores = find_kernels(wrapped)["back"].constraint.scores.numpy()
    assert np.isclose(np.abs(scores).max(), np.sqrt(6 / 18))


def test_top_keeps_exactly_so_many_also_among_equals():
    values = tf.constant([[1.0, 1.0, 0.0], [1.0, 2.0, 0.0]])
    assert scores_file.top(values, 3).numpy().tolist() == [[1, 1, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (dict(sparsity=1.0), r"\[0, 1\), got 1.0"),
        (dict(sparsity=0.9, share=1.0), r"`share` must be a number in \(0, 1\)"),
        (dict(sparsity=0.9, rate=0), "`rate` must be > 0"),
        (dict(sparsity=0.9, rate="1"), "`rate` must be > 0 and finite, got '1'"),
        (dict(sparsity={"a": 0.5}, layers=["b"]), "`layers` must be left out"),
    ],
)
def test_errors(arguments, match):
    with pytest.raises(ValueError, match=match):
        PruneByScores(**arguments)


def test_an_endless_dataset_is_refused(blobs):
    x, y = blobs()
    data = tf.data.Dataset.from_tensor_slices((x.reshape(-1, 36), y)).batch(32).repeat()
    with pytest.raises(ValueError, match="never ends"):
        PruneByScores(0.5).apply(make_model(), data)


def test_layers_of_two_factors_are_not_passed_over_in_silence():
    layers = [keras.Input((5,)), kr.layers.LowRankDense(6, 2, name="low"), keras.layers.Dense(3)]
    model = keras.Sequential(layers)
    data = tf.data.Dataset.from_tensors((np.ones((2, 5), "float32"), np.arange(2)))
    match = "{'low': 'LowRankDense'} with weights that PruneByScores cannot prune"
    for call in (PruneByScores(0.5).check, PruneByScores(0.5).apply):
        with pytest.raises(ValueError, match=match):
            call(model, data)
