"""One operation moves the variables as Keras's own does, and Adam's closed form."""

import numpy as np
import pytest
import tensorflow as tf

from keras_robust._keras import LEGACY, keras
from keras_robust.training._fused_adam import fused_adam

RNG = np.random.default_rng(0)
STARTS = [RNG.normal(size=shape).astype("float32") for shape in ((3, 3, 2, 5), (7,), ())]
GRADIENTS = [[RNG.normal(size=w.shape).astype("float32") for w in STARTS] for _ in range(6)]


def moved(optimizer, fused, dtype="float32"):
    """The variables after a step for each of GRADIENTS, and the update's operations."""
    variables = [keras.Variable(w, dtype=dtype) if not LEGACY else tf.Variable(w) for w in STARTS]
    optimizer.build(variables)

    @tf.function(autograph=False)
    def step(*gradients):
        with fused_adam(optimizer, enabled=fused):
            optimizer.apply_gradients(zip(gradients, variables, strict=True))

    for each in GRADIENTS:
        step(*each)
    traced = step.get_concrete_function(*GRADIENTS[0])
    return [np.asarray(v) for v in variables], operations(traced.graph)


def operations(graph):
    inner = [f.graph for f in graph._functions.values() if hasattr(f, "graph")]
    return {op.type for each in (graph, *inner) for op in each.get_operations()}


def schedule():
    return keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.Adam(0.1),
        lambda: keras.optimizers.Adam(schedule(), beta_1=0.5, beta_2=0.9, epsilon=0.1),
        lambda: keras.optimizers.Adam(0.1, clipnorm=0.5, use_ema=True, ema_momentum=0.5),
        lambda: keras.optimizers.Adam(0.1, ema_overwrite_frequency=3, use_ema=True),
        lambda: keras.optimizers.AdamW(0.1, weight_decay=0.3, global_clipnorm=1.0),
    ],
    ids=["plain", "schedule", "clipped", "averaged", "decayed"],
)
def test_moves_what_keras_moves(make):
    ours, theirs = make(), make()
    found, names = moved(ours, fused=True)
    expected, own = moved(theirs, fused=False)
    assert "ResourceApplyAdam" in names and "ResourceApplyAdam" not in own
    # Of 0.001 = 1 - beta_2 the operation knows what float32 leaves: 1.3e-5 of it are missing.
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for a, b in zip(states(ours), states(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)
    assert "update_step" not in vars(ours)


def states(optimizer):
    variables = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
    return [np.asarray(v) for v in variables]


@pytest.mark.parametrize(("beta_1", "beta_2"), [(0.8, 0.9), (0.9, 0.999)])
def test_is_adam_in_float64(beta_1, beta_2):
    adam = keras.optimizers.Adam(0.1, beta_1=beta_1, beta_2=beta_2, epsilon=1e-3)
    found, _ = moved(adam, fused=True)
    for number, w in enumerate(np.float64(s) for s in STARTS):
        m = v = 0.0
        for t, gradients in enumerate(GRADIENTS, 1):
            g = np.float64(gradients[number])
            m, v = beta_1 * m + (1 - beta_1) * g, beta_2 * v + (1 - beta_2) * g**2
            alpha = 0.1 * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
            w = w - alpha * m / (np.sqrt(v) + 1e-3)
        np.testing.assert_allclose(found[number], w, rtol=1e-5, atol=1e-6)


class Slower(keras.optimizers.Adam):
    """A user's own rule on top of Adam's."""

    def update_step(self, gradient, *args):
        return super().update_step(gradient * 0.0, *args)


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.Adam(0.1, amsgrad=True),
        lambda: keras.optimizers.SGD(0.1, momentum=0.9),
        lambda: Slower(0.1),
    ],
    ids=["amsgrad", "SGD", "subclass"],
)
def test_others_keep_their_rule(make):
    found, names = moved(make(), fused=True)
    expected, _ = moved(make(), fused=False)
    assert "ResourceApplyAdam" not in names
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_constraints_hold():
    class Zero(keras.constraints.Constraint):
        def __call__(self, w):
            return w * 0.0

    layer = keras.layers.Dense(2, kernel_constraint=Zero())
    layer.build((None, 3))
    optimizer = keras.optimizers.Adam(0.1)
    optimizer.build(layer.trainable_variables)
    with fused_adam(optimizer):
        gradients = [tf.ones(v.shape) for v in layer.trainable_variables]
        optimizer.apply_gradients(zip(gradients, layer.trainable_variables))
    assert not np.any(layer.kernel) and np.all(np.asarray(layer.bias) < 0)


def test_sparse_gradients_are_left_to_keras():
    table = keras.layers.Embedding(4, 2)
    table.build((None,))
    before = np.asarray(table.embeddings)
    optimizer = keras.optimizers.Adam(0.1)
    optimizer.build(table.trainable_variables)
    sparse = tf.IndexedSlices(tf.ones((1, 2)), tf.constant([2]), tf.constant([4, 2]))
    with fused_adam(optimizer):
        optimizer.apply_gradients([(sparse, table.trainable_variables[0])])
    changed = np.any(np.asarray(table.embeddings) != before, axis=1)
    assert changed.tolist() == [False, False, True, False]


def test_an_error_gives_the_rule_back():
    optimizer = keras.optimizers.Adam(0.1)
    with pytest.raises(RuntimeError), fused_adam(optimizer):
        raise RuntimeError
    assert "update_step" not in vars(optimizer)


@pytest.mark.skipif(LEGACY, reason="tf_keras's variables are TensorFlow's, of one type here")
def test_other_types_are_left_to_keras():
    found, names = moved(keras.optimizers.Adam(0.1), fused=True, dtype="bfloat16")
    expected, _ = moved(keras.optimizers.Adam(0.1), fused=False, dtype="bfloat16")
    assert "ResourceApplyAdam" not in names
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_strategy_keeps_keras_rule():
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    with strategy.scope():
        optimizer = keras.optimizers.Adam(0.1)
        with fused_adam(optimizer):
            assert "update_step" not in vars(optimizer)
