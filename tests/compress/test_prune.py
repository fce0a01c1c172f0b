import numpy as np
import pytest

from keras_robust._keras import LEGACY, keras
from keras_robust.compress import Prune
from keras_robust.compress._flatten import flatten
from keras_robust.compress._kernels import kernels
from keras_robust.compress._stage import Context

pytestmark = pytest.mark.skipif(not LEGACY, reason="compress needs tf_keras")
EVERY = ["conv_a", "conv_b", "hidden", "out"]


@pytest.mark.parametrize(
    ("stage", "epochs", "passes", "jit"),
    [
        (dict(sparsity=0.9), 2, 1, False),
        (dict(sparsity=0.7, end=1.0, frequency=3), 2, 2, True),
        (dict(sparsity=0.5, schedule="constant", begin=0.5, end=0.9), 1, 1, False),
    ],
)
def test_schedule_reaches_the_stated_sparsity(tools, stage, epochs, passes, jit):
    stage = Prune(**stage)
    model = flatten(tools.model())
    context = Context(epochs, 4)
    plain = tools.run_stage(stage, model, context, tools.dataset(), jit, passes)
    for kernel in kernels(plain).values():
        size = kernel.values.size
        assert abs(np.sum(kernel.values == 0) - size * stage.sparsity) <= 1, kernel.layer
    assert not stage.broken(kernels(model), kernels(plain), EVERY, context)
    # Biases are never pruned.
    assert [layer.name for layer in plain.layers] == [layer.name for layer in model.layers]


def test_schedule_ends_where_tfmot_updates():
    class Schedules:
        PolynomialDecay = staticmethod(lambda *args: args)
        ConstantSparsity = staticmethod(lambda *args: args)

    # begin, end, power, frequency in training steps.
    assert Prune(0.9)._schedule(Schedules, 1000)[2:] == (0, 700, 3, 35)
    assert Prune(0.9, frequency=300)._schedule(Schedules, 1000)[2:] == (0, 600, 3, 300)
    assert Prune(0.9, begin=0.5, end=1.0)._schedule(Schedules, 10)[2:] == (5, 10, 3, 1)
    assert Prune(0.9)._schedule(Schedules, 1)[2:] == (0, 1, 3, 1)
    assert Prune(0.9, schedule="constant")._schedule(Schedules, 10) == (0.9, 1, 7, 1)
    assert Prune(0.9, schedule="constant", end=0.1)._schedule(Schedules, 1) == (0.9, 1, 1, 1)


def test_step_does_not_run_ahead_when_the_model_is_called_twice(tools):
    stage = Prune(0.8, end=1.0, frequency=1)
    wrapped = stage.wrap(flatten(tools.model()), Context(1, 4))
    wrapper = next(layer for layer in wrapped.layers if layer.name.endswith("hidden"))
    seen = []

    class Record(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            for _ in range(3):
                wrapped(tools.data(4)[0], training=True)
            seen.append(float(np.mean(wrapper.layer.kernel.numpy() == 0)))

    wrapped.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    first = stage.callbacks(wrapped, Context(1, 8))
    wrapped.fit(tools.dataset(batch=16), callbacks=[*first, Record()], verbose=0)
    assert seen == sorted(seen) and seen[0] < 0.8


def test_two_of_four_in_every_group(tools):
    stage = Prune(0.5, pattern=(2, 4))
    model = flatten(tools.model())
    plain = tools.run_stage(stage, model, Context(1, 4), tools.dataset())
    for name in ("conv_b", "hidden"):
        kernel = plain.get_layer(name).kernel.numpy()
        groups = np.moveaxis(kernel, -2, -1).reshape(-1, 4)
        assert np.all(np.sum(groups == 0, axis=1) == 2), name
    assert not stage.broken({}, kernels(plain), EVERY, Context(1, 4))
    assert stage.broken({}, kernels(model), ["conv_b"], Context(1, 4)) == [
        "layer 'conv_b': 144 groups break the pattern (2, 4)"
    ]


def test_layers_by_name_by_predicate_and_unknown(tools):
    model = flatten(tools.model())
    context = Context(1, 4)
    assert Prune(0.5).check(model, context) == EVERY
    assert Prune(0.5, layers=["hidden"]).check(model, context) == ["hidden"]
    no_last = Prune(0.5, layers=lambda layer: layer.name != "out")
    assert no_last.check(model, context) == EVERY[:-1]
    with pytest.raises(ValueError, match=r"names \['nowhere'\].*conv_a"):
        Prune(0.5, layers=["nowhere"]).check(model, context)
    with pytest.raises(ValueError, match="'MaxPooling2D'}, whose weights TF-MOT cannot prune"):
        name = next(layer.name for layer in model.layers if "pool" in layer.name)
        Prune(0.5, layers=[name]).check(model, context)
    with pytest.raises(ValueError, match="no layer to prune"):
        Prune(0.5, layers=lambda layer: False).check(model, context)


def test_unreached_sparsity_is_told(tools):
    told = Prune(0.9).broken({}, kernels(flatten(tools.model())), ["conv_a"], Context(1, 4))
    assert told == ["layer 'conv_a': 0 of 72 weights are zero, sparsity 0.9 asks for 65"]


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (dict(sparsity=1.0), ValueError, r"`sparsity`.*\[0, 1\), got 1.0"),
        (dict(sparsity=90), ValueError, "Write 0.9 for 90%"),
        (dict(sparsity=-0.1), ValueError, r"got -0.1"),
        (dict(sparsity=float("nan")), ValueError, "got nan"),
        (dict(sparsity="0.9"), TypeError, "must be a number"),
        (dict(sparsity=0.5, initial_sparsity=0.6), ValueError, "must not exceed sparsity=0.5"),
        (dict(sparsity=0.5, schedule="cubic"), ValueError, "'polynomial' or 'constant'"),
        (dict(sparsity=0.5, begin=0.7, end=0.7), ValueError, "0 <= begin < end <= 1"),
        (dict(sparsity=0.5, end=1.1), ValueError, "0 <= begin < end <= 1"),
        (dict(sparsity=0.5, frequency=0), ValueError, "`frequency`"),
        (dict(sparsity=0.5, power=0), ValueError, "`power` must be positive"),
        (dict(sparsity=0.5, pattern=(4, 4)), ValueError, "0 < m < n"),
        (dict(sparsity=0.5, pattern=2), ValueError, "two whole numbers"),
        (dict(sparsity=0.9, pattern=(2, 4)), ValueError, r"Write Prune\(0.5, pattern=\(2, 4\)\)"),
        (dict(sparsity=0.5, layers="dense"), TypeError, "sequence of layer names"),
        (dict(sparsity=0.5, layers=[]), ValueError, "`layers` is empty"),
    ],
)
def test_errors(arguments, error, match):
    with pytest.raises(error, match=match):
        Prune(**arguments)
