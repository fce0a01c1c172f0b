"""Attack passes in bfloat16: traced so, and everything else left as it was."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import LEGACY, computing_in, keras


def policies(model):
    name = "_dtype_policy" if LEGACY else "dtype_policy"
    return [getattr(layer, name).name for layer in model._flatten_layers()]


def convolutions(trainer, x, y):
    """How many convolutions of a traced step compute in each type."""
    step = tf.function(lambda: trainer.train_step((x, y)), autograph=False)
    with trainer.distribute_strategy.scope():
        graph = step.get_concrete_function().graph
    graphs = [graph]
    if hasattr(graph, "_functions"):
        graphs += [f.graph for f in graph._functions.values() if hasattr(f, "graph")]
    found = [op for g in graphs for op in g.get_operations() if op.type.startswith("Conv2D")]
    kinds = [op.outputs[0].dtype.name for op in found]
    return {kind: kinds.count(kind) for kind in set(kinds)}


@pytest.mark.parametrize("batch_norm", [False, True])
def test_only_the_attack_computes_in_it(cnn, blobs, batch_norm):
    model = cnn(batch_norm=batch_norm)
    before, kept = policies(model), [np.copy(value) for value in model.get_weights()]
    attack = kr.attacks.PGD(0.1, steps=2, random_start=False)
    trainer = kr.AdversarialTraining(model, attack, attack_dtype="bfloat16")
    trainer.compile(keras.optimizers.SGD(0.01))
    x, y = map(tf.constant, blobs(12))
    trainer.fit(*blobs(12), verbose=0)
    found = convolutions(trainer, x, y)
    assert found["bfloat16"] >= 2 and found["float32"] >= 1
    assert policies(model) == before
    assert all(value.dtype == np.float32 for value in model.get_weights())
    assert model(x).dtype == tf.float32
    for value, old in zip(model.get_weights(), kept, strict=True):
        np.testing.assert_allclose(value, old, atol=0.5)


def test_kernels_are_cast_once_for_all_passes(cnn):
    model = cnn()
    kernel = model.layers[1].kernel

    @tf.function
    def three_passes(x):
        with computing_in(model, "bfloat16"):
            return [model(x, training=False) for _ in range(3)]

    graph = three_passes.get_concrete_function(tf.TensorSpec((2, 6, 6, 1))).graph

    casts = [op for op in graph.get_operations() if op.type == "Cast"]
    assert [op.outputs[0].shape for op in casts].count(kernel.shape) == 1
    assert model.layers[1].kernel is kernel


def test_depthwise_convolutions_stay_in_float32_on_a_cpu(monkeypatch):
    layers = [keras.layers.DepthwiseConv2D(3), keras.layers.Conv2D(2, 1)]
    model = keras.Sequential([keras.Input((6, 6, 2)), *layers])
    with computing_in(model, "bfloat16"):
        assert [layer.compute_dtype for layer in layers] == ["float32", "bfloat16"]
        assert model(tf.ones((1, 6, 6, 2))).dtype == tf.bfloat16
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    with computing_in(model, "bfloat16"):
        assert [layer.compute_dtype for layer in layers] == ["bfloat16"] * 2
    assert [layer.compute_dtype for layer in layers] == ["float32"] * 2


class Scaled(keras.layers.Layer):
    """A layer of one's own, which asks its variable for more than a tensor has."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, inputs):
        scale = self.scale if LEGACY else self.scale.value
        return inputs * tf.cast(scale, inputs.dtype)


def test_layers_of_ones_own_keep_their_variables(blobs):
    layers = [keras.Input((6, 6, 1)), Scaled(), keras.layers.Flatten(), keras.layers.Dense(3)]
    attack = kr.attacks.PGD(0.1, steps=2)
    trainer = kr.AdversarialTraining(keras.Sequential(layers), attack, attack_dtype="bfloat16")
    trainer.compile("sgd")
    trainer.fit(*blobs(12), verbose=0)
    assert trainer.model.layers[0].scale.dtype == "float32"


@pytest.mark.parametrize("jit", [False, True])
def test_trains_what_float32_attacks_train(cnn, blobs, jit):
    """Judged by the same float32 attack, to a few points."""
    x, y = blobs(192)
    robust = {}
    for dtype in (None, "bfloat16"):
        attack = kr.attacks.PGD(0.1, steps=3)
        trainer = kr.AdversarialTraining(cnn(), attack, attack_dtype=dtype)
        trainer.compile(keras.optimizers.Adam(0.02), jit_compile=jit)
        trainer.fit(x, y, batch_size=32, epochs=4, shuffle=False, verbose=0)
        robust[dtype] = trainer.evaluate(x, y, batch_size=64, verbose=0, return_dict=True)[
            "robust_accuracy"
        ]
    assert robust[None] > 0.7
    assert abs(robust["bfloat16"] - robust[None]) < 0.1


def test_an_error_in_the_attack_leaves_the_policy(cnn, blobs):
    class Broken(kr.attacks.PGD):
        def perturb(self, goal, x, seed, eps):
            raise RuntimeError("no")

    model = cnn()
    before = policies(model)
    trainer = kr.AdversarialTraining(model, Broken(0.1), attack_dtype="bfloat16")
    trainer.compile("sgd", run_eagerly=True)
    with pytest.raises(RuntimeError, match="no"):
        trainer.fit(*blobs(6), verbose=0)
    assert policies(model) == before
    assert all(isinstance(weight, np.ndarray) for weight in model.get_weights())


def test_other_types_are_refused(cnn):
    with pytest.raises(ValueError, match="`attack_dtype` must be 'bfloat16', 'float16', 'auto' or"):
        kr.AdversarialTraining(cnn(), kr.attacks.PGD(0.1), attack_dtype="float64")


@pytest.mark.parametrize(
    "wrap", [lambda inner: inner, lambda inner: kr.objectives.AWP(inner=inner)]
)
def test_finite_differences_are_refused(cnn, wrap):
    with pytest.raises(ValueError, match="small finite differences drown in the rounding of bf"):
        kr.AdversarialTraining(
            cnn(), kr.attacks.PGD(0.1), wrap(kr.objectives.VAT()), attack_dtype="bfloat16"
        )
