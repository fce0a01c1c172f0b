import numpy as np
import pytest

import keras_robust as kr
from keras_robust._keras import LEGACY, keras
from keras_robust.compress import Budget, Cluster, Prune, Recipe
from keras_robust.compress._flatten import flatten as flatten_legacy
from keras_robust.compress._kernels import kernels
from keras_robust.compress._magnitude import block_mask, zero_blocks
from keras_robust.compress._masks import copy_of
from keras_robust.compress._stage import Context
from keras_robust.compress._tfmot import tfmot

flatten = flatten_legacy if LEGACY else copy_of
by_tfmot = pytest.mark.skipif(not LEGACY, reason="TF-MOT needs tf_keras")
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


@by_tfmot
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


@pytest.mark.parametrize("power", [1, 2])
def test_the_share_rises_from_the_first_one_along_the_power(power):
    stage = Prune(0.8, initial_sparsity=0.3, begin=0.2, end=1.0, frequency=1, power=power)
    found = {step: stage.share_at(step, 10)(0.8) for step in range(2, 11)}
    exact = {step: 0.8 - 0.5 * (1 - (step - 2) / 8) ** power for step in range(2, 11)}
    assert found == pytest.approx(exact) and stage.share_at(1, 10) is None
    if LEGACY:
        schedule = stage._schedule(tfmot().sparsity.keras, 10)
        found = {step: float(schedule(step)[1]) for step in range(2, 11)}
        assert found == pytest.approx(exact, abs=1e-6)


@by_tfmot
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


@by_tfmot
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


def test_a_share_for_each_layer(tools):
    shares = {"conv_b": 0.5, "hidden": 0.9}
    stage = Prune(shares, end=1.0, frequency=1)
    assert hash(stage) == hash(Prune(shares, end=1.0, frequency=1))
    model, context = flatten(tools.model()), Context(1, 4)
    assert stage.check(model, context) == ["conv_b", "hidden"]
    plain = tools.run_stage(Prune(shares, schedule="constant"), model, context, tools.dataset())
    found = {kernel.layer: kernel.sparsity for kernel in kernels(plain).values()}
    assert abs(found["conv_b"] - 0.5) < 0.01 and abs(found["hidden"] - 0.9) < 0.01
    assert found["conv_a"] == found["out"] == 0
    told = stage.broken({}, kernels(model), ["conv_b", "hidden"], context)
    assert [sentence.partition(":")[0] for sentence in told] == ["layer 'conv_b'", "layer 'hidden'"]


def test_one_threshold_over_all_layers_rises_by_the_schedule(tools):
    stage = Prune(0.8, scope="global", frequency=1, end=0.75)
    model, context = flatten(tools.model()), Context(1, 4)
    wrapped = stage.wrap(model, context)
    (callback,) = stage.callbacks(wrapped, context)
    start = np.concatenate([k.values.ravel() for k in kernels(model).values()])
    callback.on_train_begin()
    for step, sparsity in enumerate((0.0, 0.8 * (1 - (2 / 3) ** 3), 0.8 * (1 - 1 / 27), 0.8)):
        callback.on_train_batch_begin(step)
        values = np.concatenate([k.values.ravel() for k in kernels(wrapped).values()])
        kept = round(start.size * (1 - sparsity))
        assert abs(np.count_nonzero(values) - kept) <= 1
        kept = np.count_nonzero(values)
        # The largest of all weights, whichever layer they are of, but that each layer keeps one.
        top = kept - len(EVERY)
        largest = np.sort(np.abs(start))[-top:]
        np.testing.assert_array_equal(np.sort(np.abs(values))[-top:], largest)


@pytest.mark.parametrize("settings", [{}, {"end": 1.0, "frequency": 3}, {"schedule": "constant"}])
@pytest.mark.parametrize("every", [1, 3, 4])
def test_no_turn_is_missed_when_several_steps_go_by_at_once(tools, every, settings):
    def tune(model):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, steps_per_execution=every)
        return model

    stage = Prune(0.9, scope="global", **settings)
    result = Recipe([stage]).run(tools.model(), tools.dataset(), epochs=5, fine_tune=tune)
    found = kernels(result.model).values()
    zeros = sum(np.sum(kernel.values == 0) for kernel in found)
    assert abs(zeros / sum(kernel.values.size for kernel in found) - 0.9) < 0.01


def test_global_zeros_outlive_training_and_clustering(tools):
    # Cluster needs TF-MOT, Prune in a recipe does not.
    stages = [Prune(0.8, scope="global"), *([Cluster(8)] if LEGACY else [])]
    result = Recipe(stages).run(tools.model(), tools.dataset(), epochs=1, verbose=0)
    assert not [sentence for stage in result.stages for sentence in stage.broken]
    found = [kernels(stage.model) for stage in result.stages]
    shares = [kernel.sparsity for kernel in found[0].values()]
    assert max(shares) - min(shares) > 0.2
    assert abs(result.stages[0].sparsity - 0.8) < 0.002
    for key, kernel in found[0].items():
        for later in found[1:]:
            assert not np.any(later[key].values[kernel.values == 0])


@by_tfmot
@pytest.mark.parametrize("pooling", ["average", "max"])
def test_whole_blocks_as_tfmot_chooses_them(tools, pooling):
    stage = Prune(0.5, block=(4, 2), block_pooling=pooling, schedule="constant")
    model, context = flatten(tools.model()), Context(1, 2)
    assert stage.check(model, context) == ["hidden", "out"]
    wrapped = stage.wrap(model, context)
    wrapper = next(layer for layer in wrapped.layers if layer.name.endswith("hidden"))
    for step in (0, 1):
        wrapper.pruning_step.assign(step)
        wrapper(np.zeros((1, 32), "float32"), training=True)
    kernel = kernels(stage.strip(wrapped, model))["hidden", "kernel"].values
    ours = block_mask(kernels(model)["hidden", "kernel"].values, 0.5, (4, 2), pooling)
    np.testing.assert_array_equal(kernel != 0, ours)
    assert zero_blocks(kernel, (4, 2)) == (24, 48)
    told = stage.broken({}, kernels(model), ["hidden"], context)
    assert told == ["layer 'hidden': 0 of 48 blocks (4, 2) are zero, sparsity 0.5 asks for 24"]


def test_unreached_sparsity_is_told(tools):
    told = Prune(0.9).broken({}, kernels(flatten(tools.model())), ["conv_a"], Context(1, 4))
    assert told == ["layer 'conv_a': 0 of 72 weights are zero, sparsity 0.9 asks for 65"]


def test_until_the_budget_is_spent(tools):
    values = iter([0.9, 0.895, 0.85])
    stage = Prune(0.99, until=Budget(most_loss=0.01, step=0.5, metric="robust_accuracy"))
    model, context = flatten(tools.model()), Context(5, 4)
    wrapped = stage.wrap(model, context)
    wrapped.stop_training = False
    (callback,) = stage.callbacks(wrapped, context)
    callback.set_model(wrapped)
    callback.on_train_begin()
    for epoch in range(3):
        assert not wrapped.stop_training
        callback.on_epoch_begin(epoch)
        found = [kernel.sparsity for kernel in kernels(wrapped).values()]
        np.testing.assert_allclose(found, 1 - 0.5**epoch, atol=0.01)
        callback.on_epoch_end(epoch, {"val_robust_accuracy": next(values)})
    assert wrapped.stop_training
    callback.on_train_end()
    plain = stage.strip(wrapped, model)
    # The last round inside, not the one beyond.
    found = [kernel.sparsity for kernel in kernels(plain).values()]
    np.testing.assert_allclose(found, 0.5, atol=0.01)
    assert not stage.broken({}, kernels(plain), EVERY, context)
    assert "no round stayed inside" in stage.broken({}, kernels(model), EVERY, context)[0]
    with pytest.raises(ValueError, match="at least epochs=2"):
        stage.check(model, Context(1, 4))
    with pytest.raises(ValueError, match="'val_robust_accuracy', which is not logged"):
        callback.on_epoch_end(0, {"accuracy": 1.0})


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
        (dict(sparsity={}), ValueError, "empty dict"),
        (dict(sparsity={"a": 1.5}), ValueError, r"sparsity\['a'\].*got 1.5"),
        (dict(sparsity={"a": 0.1}, initial_sparsity=0.2), ValueError, "of layer 'a', got 0.2"),
        (dict(sparsity={"a": 0.1}, layers=["b"]), ValueError, "`layers` must be left out"),
        (dict(sparsity=0.5, scope="all"), ValueError, "'layer' or 'global', got 'all'"),
        (dict(sparsity={"a": 0.5}, scope="global"), ValueError, "a sparsity for each layer"),
        (dict(sparsity=0.5, scope="global", pattern=(2, 4)), ValueError, "cannot have pattern"),
        (dict(sparsity=0.5, block=(1, 1)), ValueError, "at least two weights"),
        (dict(sparsity=0.5, block=4), ValueError, r"two whole numbers such as \(4, 1\)"),
        (dict(sparsity=0.5, block=(4, 1), block_pooling="min"), ValueError, "'average' or 'max'"),
        (dict(sparsity=0.5, block=(4, 1), pattern=(2, 4)), ValueError, "cannot be combined"),
        (dict(sparsity=0.5, until=0.01), TypeError, r"until=kr.compress.Budget\(most_loss"),
        (dict(sparsity=0.5, pattern=(2, 4), until=Budget()), ValueError, "`until` needs rounds"),
        (dict(sparsity=0.5, layers="dense"), TypeError, "sequence of layer names"),
        (dict(sparsity=0.5, layers=[]), ValueError, "`layers` is empty"),
    ],
)
def test_errors(arguments, error, match):
    with pytest.raises(error, match=match):
        Prune(**arguments)


def low_rank_model():
    dense = [keras.layers.Dense(6, name="first"), kr.layers.LowRankDense(6, 2, name="low")]
    return keras.Sequential([keras.Input((5,)), *dense, keras.layers.Dense(3, name="out")])


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_layers_of_two_factors_are_not_passed_over_in_silence(scope):
    model = low_rank_model()
    match = (
        r"layers {'low': 'LowRankDense'} with weights that Prune cannot prune.*Factorize.*not in"
    )
    for chosen in (None, lambda layer: layer.name != "out"):
        stage = Prune(0.5, scope=scope, layers=chosen)
        with pytest.raises(ValueError, match=match):
            stage.check(model, Context(1, 4))
        with pytest.raises(ValueError, match=match):
            stage.apply(model)
    with pytest.raises(ValueError, match="'low'"):
        Prune(0.5, scope=scope, layers=["low"]).check(model, Context(1, 4))
    rest = Prune(0.5, scope=scope, layers=lambda layer: layer.name != "low")
    assert rest.check(model, Context(1, 4)) == ["first", "out"]
    assert np.mean(rest.apply(model).get_layer("first").kernel == 0) > 0.3
