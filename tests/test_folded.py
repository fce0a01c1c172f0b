"""BatchNormalization folded into convolutions: the same values by fewer operations."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._fast_passes import fast_passes
from keras_robust._folded import folded_batch_norm
from keras_robust._keras import computing_in, keras
from keras_robust.training.objectives import Madry

layers = keras.layers


@pytest.fixture
def model(rng):
    """Strides, biases, no scale, depthwise, a residual add, and one that goes to two layers."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, use_bias=False, name="first")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="first_bn")(x))
    y = layers.Conv2D(16, 3, strides=2, padding="same", name="second")(x)
    y = layers.BatchNormalization(scale=False, epsilon=1e-2, name="second_bn")(y)
    y = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="deep")(y)
    y = layers.BatchNormalization(name="deep_bn")(y)
    x = layers.Conv2D(32, 1, strides=2, name="two")(x)
    x = layers.Add()([x, layers.BatchNormalization(name="two_bn")(x), y])
    outputs = layers.Dense(4)(layers.Flatten()(layers.ReLU()(x)))
    model = keras.Model(inputs, outputs)
    return strewn(model, rng)


def strewn(model, rng):
    """The model with weights that are the same whatever ran before."""
    for kernel in (w for w in model.trainable_variables if len(w.shape) > 1):
        size = np.sqrt(np.prod(kernel.shape[:-1]))
        kernel.assign(rng.normal(size=kernel.shape) / size)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 2.0, w.shape) for w in layer.get_weights()])
    return model


def traced(model, folded=True, dtype=None, training=False, **more):
    def run(x):
        with folded_batch_norm(model, dtype) if folded else fast_passes(model, enabled=False):
            with computing_in(model, dtype), tf.GradientTape() as tape:
                tape.watch(x)
                logits = tf.cast(model(x, training=training), tf.float32)
                total = tf.reduce_sum(logits**2)
            return logits, tape.gradient(total, x)

    return tf.function(run, autograph=False, **more)


def on_images(function, x) -> list[str]:
    """Types of the operations that the results of `function` need and that return images."""
    todo = [t.op for t in function.get_concrete_function(x).graph.outputs]
    seen = {}
    while todo:
        operation = todo.pop()
        if operation.name not in seen:
            seen[operation.name] = operation
            todo += [t.op for t in operation.inputs]
    shapes = [(found.type, found.outputs[0].shape) for found in seen.values() if found.outputs]
    return [kind for kind, shape in shapes if shape.rank == 4 and shape[0] == x.shape[0]]


@pytest.mark.parametrize("jit", [False, True])
def test_the_same_logits_and_gradients(model, rng, jit):
    x = tf.constant(rng.uniform(size=(4, 8, 8, 3)), tf.float32)
    for new, old in zip(traced(model, jit_compile=jit)(x), traced(model, folded=False)(x)):
        np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-4 * np.abs(old).max())


@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 0.03), ("float16", 0.004)])
def test_in_few_bits_they_are_as_near_to_float32(model, rng, dtype, most):
    x = tf.constant(rng.uniform(size=(32, 8, 8, 3)), tf.float32)
    exact = traced(model, folded=False)(x)[0]
    plain, new = (traced(model, f, dtype=dtype)(x)[0] for f in (False, True))
    error = [float(tf.norm(other - exact) / tf.norm(exact)) for other in (plain, new)]
    assert error[1] < 1.3 * error[0] < most
    assert float(tf.norm(new - plain)) > 0


def test_convolutions_alone_remain(model):
    """But for `two_bn`: another layer takes what it takes."""
    x = tf.zeros([7, 8, 8, 3])
    before, after = (on_images(traced(model, folded), x) for folded in (False, True))

    def count(found, *kinds):
        return sum(name.startswith(kinds) for name in found)

    # There and back.
    for kind, number in (("Conv2D", 3), ("DepthwiseConv2d", 1)):
        assert count(before, kind) == count(after, kind) == 2 * number
    norm = "FusedBatchNorm", "Mul"  # As tf_keras does it, and as Keras 3.
    assert count(before, *norm) == 2 * 4 and count(after, *norm) == 2 * 1


def test_training_mode_inside_is_untouched(model, rng):
    x = tf.constant(rng.uniform(size=(4, 8, 8, 3)), tf.float32)
    start, found = model.get_weights(), []
    for folded in (False, True):
        model.set_weights(start)
        logits = traced(model, folded, training=True)(x)[0]
        found.append([np.array(logits), *model.get_weights()])
    for old, new in zip(*found):
        np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-5)
    assert any(np.abs(a - b).max() > 0.01 for a, b in zip(start, found[1][1:]))


def test_parts_of_the_model_are_right_inside(model, rng):
    """What ends with a convolution, and what begins with the normalization after it."""
    x = tf.constant(rng.uniform(size=(4, 8, 8, 3)), tf.float32)
    head = keras.Model(model.inputs, model.get_layer("second").output)
    norm = model.get_layer("second_bn")
    expected = head(x), norm(head(x), training=False)

    @tf.function(autograph=False)
    def run(x):
        with folded_batch_norm(model):
            y = head(x, training=False)
            return y, norm(tf.identity(y), training=False)

    for old, new in zip(expected, run(x)):
        np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-4)


def test_layers_are_left_as_they_were(model):
    bn, convolution = model.get_layer("first_bn"), model.get_layer("first")

    @tf.function(autograph=False)
    def run():
        with fast_passes(model):
            own = vars(bn)["call"]
            with pytest.raises(ZeroDivisionError), folded_batch_norm(model):
                assert vars(bn)["call"] is not own and "call" in vars(convolution)
                raise ZeroDivisionError
            assert vars(bn)["call"] is own and "call" not in vars(convolution)
        return 0

    run()
    assert "call" not in vars(bn)
    with folded_batch_norm(model):  # Not at once, and nothing but Keras models.
        assert "call" not in vars(bn)
    with folded_batch_norm(lambda x: x):
        pass


class Watched(Madry):
    def perturb(self, step, x, y):
        folded.append("call" in vars(step.model.get_layer("first")))
        return super().perturb(step, x, y)

    def minimise(self, step, *arguments):
        folded.append("call" in vars(step.model.get_layer("first")))
        return super().minimise(step, *arguments)


folded = []


def test_the_attack_in_training_folds_and_its_step_of_the_weights_does_not(model, rng):
    x, y = rng.uniform(size=(8, 8, 8, 3)).astype("float32"), np.arange(8) % 4
    trainer = kr.AdversarialTraining(model, kr.attacks.PGD(0.1, steps=2), Watched())
    trainer.compile("sgd")
    folded.clear()
    trainer.fit(x, y, verbose=0)
    assert folded[:2] == [True, False]
