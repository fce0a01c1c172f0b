"""What holds for every objective: XLA, one trace, labels, weights, precision, BatchNorm."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import LEGACY, keras
from keras_robust.training import objectives

CATEGORICAL = keras.losses.CategoricalCrossentropy(from_logits=True)
PGD = kr.attacks.PGD(0.1, steps=2)


class Counter(keras.layers.Layer):
    """Passes its input on, and counts its calls: those of a step, and in Python those traced."""

    def build(self, shape):
        start = "zeros"
        self.passes = self.add_weight(name="passes", shape=(), initializer=start, trainable=False)
        self.traced = 0

    def call(self, inputs, training=None):
        if training:
            self.traced += 1
            self.passes.assign_add(1.0)
        return inputs

    def compute_output_shape(self, shape):
        return shape


def make_model(seed=0):
    """Six inputs, BatchNorm and the counter: small, so that XLA compiles it in a moment."""
    start = [keras.initializers.GlorotUniform(seed=seed + i) for i in range(2)]
    inputs = keras.Input((6,))
    x = keras.layers.Dense(5, kernel_initializer=start[0])(inputs)
    x = Counter(name="counter")(keras.layers.BatchNormalization()(x))
    x = keras.layers.Activation("tanh")(x)
    x = keras.layers.Dense(3, kernel_initializer=start[1], dtype="float32")(x)
    return keras.Model(inputs, x, name=f"model_{seed}")


# With each the passes in training mode that one batch takes.
MAKERS = {
    "Madry": (objectives.Madry, 1),
    "TRADES": (objectives.TRADES, 2),
    "MART": (objectives.MART, 2),
    "ALP": (objectives.ALP, 1),
    "Mixed": (objectives.Mixed, 1),
    "VAT": (objectives.VAT, 2),
    "GradientPenalty": (objectives.GradientPenalty, 1),
    "Fast": (objectives.Fast, 1),
    "Fast, aligned": (lambda: objectives.Fast(grad_align=0.2), 1),
    "Free": (lambda: objectives.Free(replays=3), 3),
    "AWP": (lambda: objectives.AWP(gamma=0.01), 1),
    "AWP of TRADES": (lambda: objectives.AWP(0.01, objectives.TRADES()), 2),
    "Distil": (lambda: objectives.Distil([make_model(seed=8)]), 2),
    "Ensemble": (lambda: objectives.Ensemble([make_model(seed=7)]), 1),
}


@pytest.fixture(params=list(MAKERS))
def case(request):
    make, passes = MAKERS[request.param]
    return make(), passes


@pytest.fixture
def data(rng):
    """20 rows of three classes, and weights."""
    x = rng.uniform(0, 0.5, size=(20, 6)).astype("float32")
    y = (np.arange(20) % 3).astype("int32")
    x[np.arange(20), y] += 0.5
    return x, y, rng.uniform(0.5, 1.5, size=20).astype("float32")


def fit(objective, data, loss=None, rate=0.1, epochs=2, model=None, **settings):
    """Batches of 8, 8 and 4."""
    model = make_model() if model is None else model
    trainer = kr.AdversarialTraining(model, PGD, objective)
    trainer.compile(keras.optimizers.SGD(rate), loss, **settings)
    batches = tf.data.Dataset.from_tensor_slices(data).batch(8)
    trainer.logs = trainer.fit(batches, epochs=epochs, verbose=0).history
    return trainer


def test_every_public_objective_is_here():
    abstract = {"Objective", "Carrying", "Wrapping", "Outcome", "Step"}
    assert {name.split(",")[0].split(" ")[0] for name in MAKERS} == {*objectives.__all__} - abstract


# How HLO writes a size that is known when it runs, and what leaves the device.
NOT_FOR_A_TPU = ("<=", "callback", "infeed(", "outfeed(", "send(", "recv(")


def lowered(step, *arguments) -> str:
    """What XLA is given of `step`: HLO as text, not compiled for any device."""
    return tf.function(step, jit_compile=True).experimental_get_compiler_ir(*arguments)("hlo")


def test_compiles_with_xla_once_and_takes_one_hot_labels(case, data):
    """Two epochs with a short last batch; the same weights as without XLA from integers.

    And for a TPU the step, all of it, has static shapes and asks nothing of the host.
    """
    objective, passes = case
    x, y, weight = data
    plain = fit(objective, data, jit_compile=False)
    one_hot = (x, np.eye(3, dtype="float32")[y], weight)
    compiled = fit(objective, one_hot, CATEGORICAL, jit_compile=True)
    for a, b in zip(plain.model.get_weights(), compiled.model.get_weights()):
        np.testing.assert_allclose(a, b, atol=2e-3)
    for trainer in (plain, compiled):
        counter = trainer.model.get_layer("counter")
        assert counter.traced == passes
        assert float(counter.passes) == 6 * passes
        assert set(trainer.logs) == {"loss", "robust_accuracy"}
    text = lowered(compiled.train_step, tuple(tf.constant(values[:8]) for values in one_hot))
    assert text.count("f32[8,6]") > 5  # The batch, again and again.
    assert not [sign for sign in NOT_FOR_A_TPU if sign in text]


def distillation(method, teachers=None):
    teachers = teachers or make_model(seed=8)
    return kr.Distillation(make_model(), teachers, attack=PGD, method=method)


# What has no objective of its own above, and the rows that go through the network at once.
TRAINERS = {
    "rslad": (lambda: distillation("rslad"), 8),
    "iad": (lambda: distillation("iad"), 8),
    "stored": (lambda: distillation("rslad", "stored"), 8),
    "LayerFeedback": (lambda: kr.training.LayerFeedback(make_model(), PGD, pool=8), 8),
    "accumulate": (lambda: kr.AdversarialTraining(make_model(), PGD, accumulate=2), 4),
}


@pytest.mark.parametrize("name", list(TRAINERS))
def test_steps_of_other_trainers_are_for_a_tpu_too(name, data, rng):
    """Lowered, not compiled: that they train under XLA is seen where they are tested."""
    make, rows = TRAINERS[name]
    x, y, _ = (values[:8] for values in data)
    if name == "stored":
        y = {"labels": y, "logits": rng.normal(size=(8, 1, 3)).astype("float32")}
    trainer = make()
    trainer.compile(keras.optimizers.SGD(0.1), jit_compile=True)
    # No epoch is left: what a step needs is made, and none is taken.
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    trainer.fit(batches, epochs=1, initial_epoch=1, verbose=0)
    text = lowered(trainer.train_step, tf.nest.map_structure(tf.constant, (x, y)))
    assert text.count(f"f32[{rows},6]") > 5
    assert not [sign for sign in NOT_FOR_A_TPU if sign in text]


def test_signs_of_what_no_tpu_can_do_are_seen():
    x = tf.ones([8, 6])
    assert "<=" in lowered(lambda x: tf.reduce_sum(tf.boolean_mask(x, x[:, 0] > 0)), x)
    with pytest.raises(ValueError, match="PyFunc"):
        lowered(lambda x: tf.numpy_function(np.sum, [x], tf.float32), x)


def test_labels_of_weight_zero_do_not_count(case, data, net, step_for, rng):
    """In float64, without BatchNorm, which lets the rows of a batch see one another."""
    objective, _ = case
    net = type(net)(inputs=6)
    x, y, weight = tf.constant(data[0][:8]), data[1][:8], np.repeat([1.0, 0.0], 4)
    carried = tf.constant(rng.uniform(-0.1, 0.1, size=(8, 6)), tf.float32)
    step = step_for(net, carried=carried)
    losses = []
    for labels in (y, np.where(weight > 0, y, (y + 1) % 3)):
        x_adv = objective.perturb(step, x, tf.constant(labels, tf.int32))
        losses.append(float(objective.minimise(step, x, x_adv, labels, weight).loss))
    np.testing.assert_allclose(*losses, rtol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(case, data, policy):
    objective, _ = case
    config = keras.mixed_precision if LEGACY else keras.config
    before = config.global_policy() if LEGACY else config.dtype_policy()
    setter = config.set_global_policy if LEGACY else config.set_dtype_policy
    setter(policy)
    try:
        part = tuple(values[:8] for values in data)
        # The loss scale halves until nothing overflows: a few steps go by.
        trainer = fit(objective, part, epochs=25, rate=0.01, run_eagerly=True)
    finally:
        setter(before)
    assert np.isfinite(trainer.logs["loss"][0])
    assert all(np.all(np.isfinite(weight)) for weight in trainer.model.get_weights())
    start = make_model().get_weights()
    assert any(np.any(a != b) for a, b in zip(start[:2], trainer.model.get_weights()[:2]))


@pytest.mark.parametrize("name", ["Free", "AWP", "Fast, aligned"])
@pytest.mark.parametrize("start", ["ones", "normal"])
def test_regularisation_counts_once(data, name, start):
    """With a loss of nothing but the penalty, the weights shrink by rate times 2 * 0.1 * w.

    That is: further than without the penalty, for alignment moves them by itself.
    """
    x, y, _ = data
    start = np.ones((6, 3)) if start == "ones" else np.random.default_rng(1).normal(size=(6, 3))

    def nothing(labels, logits):
        return 0.0 * tf.reduce_sum(logits, axis=-1)

    kernels = []
    for strength in (0.1, 0.0):
        dense = keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(strength))
        model = keras.Sequential([keras.Input((6,)), dense])
        model.set_weights([start, np.zeros(3)])
        objective = objectives.Free(replays=1) if name == "Free" else MAKERS[name][0]()
        fit(objective, (x[:8], y[:8]), nothing, epochs=1, model=model, run_eagerly=True)
        kernels.append(dense.kernel.numpy())
    scale = 1.01 if name == "AWP" else 1.0  # The penalty's own gradient moves the kernel out.
    np.testing.assert_allclose(kernels[0] - kernels[1], -0.1 * 0.2 * scale * start, atol=1e-6)
    if name != "Fast, aligned":
        np.testing.assert_allclose(kernels[1], start, atol=1e-6)
