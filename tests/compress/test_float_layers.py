"""Layers left in float while the others are trained to int8: which, and what is refused."""

import numpy as np
import pytest

from keras_robust._keras import LEGACY, keras
from keras_robust.compress import Quantize, sensitivity
from keras_robust.compress._flatten import flatten
from keras_robust.compress._float_layers import rounds_input, treatments
from keras_robust.compress._kernels import kernels
from keras_robust.compress._stage import Context

pytestmark = pytest.mark.skipif(not LEGACY, reason="compress needs tf_keras")
layers = keras.layers


@pytest.fixture(scope="module")
def block(tools):
    """Convolution, BatchNormalization and ReLU; a branch that is added; two Dense."""
    inputs = keras.Input(tools.shape)
    x = layers.Rescaling(2.0, -1.0, name="scale")(inputs)
    x = layers.Conv2D(4, 3, padding="same", name="first")(x)
    y = layers.Conv2D(4, 3, padding="same", name="branch")(x)
    y = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(y))
    x = layers.Flatten(name="flat")(layers.Add(name="sum")([x, y]))
    x = layers.Dense(6, activation="relu", name="hidden")(x)
    return flatten(keras.Model(inputs, layers.Dense(tools.classes, name="out")(x)))


@pytest.mark.parametrize(
    ("names", "expected", "input_rounded"),
    [
        # With its BatchNormalization and ReLU; what leaves them is rounded for the sum.
        (["branch"], dict(branch="nothing", norm="nothing", relu="output", sum="default"), True),
        # Two consumers; the input and what scales it are its alone.
        (["first"], dict(scale="nothing", first="output", relu="default"), False),
        # From one float layer to the next, and to the end, nothing is rounded.
        (["hidden", "out"], dict(flat="default", hidden="nothing", out="nothing"), True),
        (["hidden"], dict(sum="default", hidden="output", out="default"), True),
        ([], dict(scale="output", first="default", out="default"), True),
    ],
)
def test_what_is_rounded(block, names, expected, input_rounded):
    found = treatments(block, names)
    assert {name: found[name] for name in expected} == expected
    assert rounds_input(block, names) == input_rounded


def test_a_float_kernel_is_trained_as_it_is(tools, block):
    stage = Quantize(float_layers=["branch", "out"])
    context = Context(1, 4, tools.dataset().map(lambda x, y: x))
    assert stage.check(block, context) == ["first", "hidden"]
    twin = tools.run_stage(stage, block, context, tools.dataset())
    found = {name: kernel.codes is None for (name, _), kernel in kernels(twin).items()}
    assert found == {"first": False, "branch": True, "hidden": False, "out": True}
    used, before = kernels(twin)["branch", "kernel"].values, block.get_layer("branch").kernel
    assert np.abs(used - before).max() > 0 and np.unique(used).size == used.size
    x, _ = tools.data(8)
    exact = block(x).numpy()
    ready = Quantize(float_layers=["branch", "first", "hidden"]).apply(block, x)
    assert np.abs(ready(x, training=False) - exact).max() < 0.05 * np.ptp(exact)


def test_what_cannot_be_quantized_may_stay_float(tools):
    inputs = keras.Input(tools.shape)
    x = layers.Conv2D(4, 3, activation="elu", name="elu")(inputs)
    x = layers.LayerNormalization(name="norm")(layers.Conv2D(4, 3, name="conv")(x))
    model = keras.Model(inputs, layers.Dense(4)(layers.Flatten()(x)))
    x, y = tools.data(32)
    with pytest.raises(ValueError, match=r"or leave it in float: Quantize.float_layers=\['elu'\]"):
        Quantize().apply(model, x)
    with pytest.raises(ValueError, match=r"leave it in float: Quantize.float_layers=\['norm'\]"):
        Quantize(float_layers=["elu"]).apply(model, x)
    exact = model(x).numpy()
    ready = Quantize(float_layers=["elu", "norm"]).apply(model, x)
    assert np.abs(ready(x, training=False) - exact).max() < 0.1 * np.ptp(exact)
    # What the sensitivity names can be handed on as it is.
    worst = sensitivity(model, x, y, bits=2).most_sensitive(1)
    assert Quantize(float_layers=worst).float_layers == tuple(worst)


def shared():
    inputs, dense = keras.Input((4,)), layers.Dense(4, name="twice")
    return keras.Model(inputs, layers.Dense(2, name="last")(dense(dense(inputs))))


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["nowhere"], r"names \['nowhere'\], which are no layers with weights.*'first', 'branch'"),
        (["relu", "norm"], r"names \['relu', 'norm'\].*BatchNormalization and ReLU, stays with"),
        (["first", "branch", "hidden", "out"], "names every layer.*Leave Quantize out"),
    ],
)
def test_layers_that_are_not_there(block, names, match):
    with pytest.raises(ValueError, match=match):
        Quantize(float_layers=names).check(block, Context(1, 1))


def test_other_errors():
    with pytest.raises(ValueError, match="'twice'.*called 2 times.*shared"):
        Quantize(float_layers=["twice"]).check(flatten(shared()), Context(1, 1))
    with pytest.raises(TypeError, match=r"sequence of names, write \['out'\]"):
        Quantize(float_layers="out")
    with pytest.raises(TypeError, match=r"names such as \['logits'\], got \[3\]"):
        Quantize(float_layers=[3])
    assert Quantize(float_layers=None) == Quantize(float_layers=[]) == Quantize()
