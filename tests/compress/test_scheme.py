import numpy as np
import pytest

from keras_robust._keras import LEGACY, keras
from keras_robust.compress import Quantize
from keras_robust.compress._flatten import flatten
from keras_robust.compress._kernels import kernels
from keras_robust.compress._stage import Context

pytestmark = pytest.mark.skipif(not LEGACY, reason="compress needs tf_keras")


def compressed(tools, clusters=4):
    """Kernels with few values, zeros in conv_b and hidden only, each channel using them all."""
    model = flatten(tools.model())
    generator = np.random.default_rng(0)
    for name in ("conv_a", "conv_b", "hidden", "out"):
        kernel = model.get_layer(name).kernel
        values = np.linspace(-0.4, 0.5, clusters)
        if name in ("conv_b", "hidden"):
            values[1] = 0.0
        kernel.assign(generator.choice(values, kernel.shape))
    return model


def test_zeros_and_clusters_of_each_kernel_survive_training(tools):
    # Two faults of TF-MOT would show: conv_a and out have no zeros, which would switch the
    # zeros of the others off; and each channel has all 4 values, which would split them.
    stage = Quantize()
    model = compressed(tools)
    context = Context(3, 4, tools.dataset().map(lambda x, y: x), sparse=True, clusters=4)
    plain = tools.run_stage(stage, model, context, tools.dataset())
    before, after = kernels(model), kernels(plain)
    for key, kernel in after.items():
        assert np.unique(kernel.values).size <= 4, key
        assert np.all(kernel.codes[before[key].values == 0] == 0), key
        assert not np.array_equal(kernel.values, before[key].values), "nothing was trained"
    assert not stage.broken(before, after, [], context)


def test_zeros_alone_survive_training(tools):
    stage = Quantize(preserve=["sparsity"])
    model = flatten(tools.model())
    kernel = model.get_layer("hidden").kernel
    kernel.assign(np.where(np.abs(kernel) < 0.1, 0.0, kernel))
    zero = kernel.numpy() == 0
    context = Context(2, 4, tools.dataset().map(lambda x, y: x))
    plain = tools.run_stage(stage, model, context, tools.dataset(), jit_compile=True)
    after = kernels(plain)["hidden", "kernel"]
    assert zero.sum() > 100 and np.all(after.codes[zero] == 0) and np.all(after.values[zero] == 0)
    assert after.distinct > 200


@pytest.mark.parametrize("activation", [None, "relu"])
def test_kernel_before_a_relu_layer_is_quantized(tools, activation):
    inputs = keras.Input((6,))
    x = keras.layers.Dense(5, name="dense")(inputs)
    x = keras.layers.Activation(activation)(x) if activation else keras.layers.ReLU()(x)
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    wrapped = Quantize().wrap(flatten(model), Context(1, 1))
    assert ("dense", "kernel") in kernels(wrapped)
    # Its activation is rounded after the ReLU only.
    names = [w.name for layer in wrapped.layers for w in layer.weights]
    assert not any("quant_dense/post_activation" in name for name in names)
