"""The loop stops before the damage, and what it returns is inside the budget."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.compress import Budget, Prune, PruneNeurons, Recipe, prune_until
from keras_robust.compress import _until as until
from keras_robust.compress._masks import find_kernels, value_of


@pytest.fixture(scope="module")
def setting():
    generator = np.random.default_rng(0)
    x = generator.uniform(size=(240, 12)).astype("float32")
    y = np.argmax(x[:, :3], axis=1).astype("int32")
    layers = [keras.Input((12,)), keras.layers.Dense(16, "relu", name="hidden")]
    model = keras.Sequential([*layers, keras.layers.Dense(3, name="out")])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    keras.utils.set_random_seed(0)
    model.compile(keras.optimizers.Adam(0.02), loss, metrics=["accuracy"])
    model.fit(x, y, epochs=15, verbose=0)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(60)
    return model, data


def accuracy(model, data):
    return np.mean([np.mean(np.argmax(model(x), 1) == y) for x, y in data])


def test_the_last_model_inside_the_budget(setting):
    model, data = setting
    before = model.get_weights()
    run = prune_until(model, data, data, most_loss=0.1, step=0.4, epochs=2, verbose=0)
    assert run.stopped == "budget"
    assert [row["inside"] for row in run.rounds] == [True] * (len(run.rounds) - 1) + [False]
    for row in run.rounds:
        assert abs(row["kept"] - 0.6 ** row["round"]) < 0.01
        assert row["inside"] == (run.reference - row["value"] <= 0.1)
    assert abs(accuracy(run.model, data) - run.rounds[-2]["value"]) < 1e-6
    values = [value_of(variable) for variable in find_kernels(run.model).values()]
    kept = sum(np.count_nonzero(v) for v in values) / sum(v.size for v in values)
    assert kept == run.kept < 1
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)
    assert "stopped: budget" in run.summary() and run.to_dict()["kept"] == run.kept


def test_no_round_beyond_the_sparsity_asked_for(setting):
    model, data = setting
    stage = Prune({"hidden": 0.3})
    run = prune_until(model, data, data, stage=stage, most_loss=1.0, verbose=0)
    assert run.stopped == "sparsity" and len(run.rounds) == 2
    kernel = value_of(find_kernels(run.model)["hidden"])
    assert np.sum(kernel == 0) == round(0.3 * kernel.size)


def test_the_optimizer_is_taken_and_the_seed_is_of_what_is_random(setting):
    model, data = setting
    drawn, optimizers = [], []

    def untrained(model):
        """Draws where it would train."""

        def fit(*_, **__):
            optimizers.append(model.optimizer)
            drawn.append(float(tf.random.uniform([])))

        model.fit, model.evaluate = fit, lambda *_, **__: {"accuracy": 0.5}
        return model

    for seed in (1, 1, 2):
        settings = dict(rounds=1, fine_tune=untrained, verbose=0, seed=seed)
        run = prune_until(model, data, data, optimizer=keras.optimizers.SGD(0.125), **settings)
        assert run.rounds[0]["inside"]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({id(optimizer) for optimizer in optimizers}) == 3
    assert {float(optimizer.learning_rate) for optimizer in optimizers} == {0.125}


def test_neurons_and_robust_accuracy(setting, capsys):
    model, data = setting
    run = prune_until(
        model,
        data,
        data,
        stage=PruneNeurons(0.25, score="l1"),
        metric="robust_accuracy",
        most_loss=1.0,
        rounds=2,
        fine_tune=lambda m: kr.AdversarialTraining(m, kr.attacks.FGSM(eps=0.02)),
    )
    # 16, 12, 9 units.
    assert run.model.layers[-2].units == 9 and run.stopped == "rounds"
    assert 0.3 < run.reference < accuracy(model, data)
    assert capsys.readouterr().out.count("robust_accuracy") == 2


def test_damage_at_once_gives_the_model_back(setting):
    model, data = setting
    run = prune_until(model, data, data, most_loss=0.0, step=0.95, verbose=0)
    assert run.kept == 1.0 and not run.rounds[0]["inside"]
    for old, new in zip(model.get_weights(), run.model.get_weights()):
        np.testing.assert_array_equal(old, new)
    assert run.model is not model


def test_a_sparse_model_that_is_given_back_keeps_what_it_had(setting):
    model, data = setting
    sparse = Prune(0.5).apply(model)
    # With one weight in a hundred it does worse at once.
    run = prune_until(sparse, data, data, most_loss=0.0, step=0.99, epochs=1, verbose=0)
    assert not any(row["inside"] for row in run.rounds)
    assert run.kept == run.to_dict()["kept"] == 0.5
    assert run.summary().splitlines()[1].split()[1] == "50.00"


def test_a_nan_is_outside():
    assert not Budget(0.5).inside(0.9, float("nan"))
    assert Budget(0.01).inside(0.9, 0.89) and not Budget(0.01).inside(0.9, 0.8899)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (dict(stage=0.9), TypeError, r"`stage` must be for instance kr.compress.Prune"),
        (dict(stage=Prune(0.5, pattern=(2, 4))), ValueError, "has a `pattern`"),
        (dict(stage=kr.compress.Factorize(rank=2)), TypeError, "`stage` must remove a little more"),
        (dict(stage=kr.compress.PruneByScores(0.5)), TypeError, "got PruneByScores"),
        (dict(most_loss=-1), ValueError, "`most_loss` must be a number >= 0, got -1"),
        (dict(step=1.0), ValueError, r"`step` must be a number in \(0, 1\), got 1.0"),
        (dict(epochs=0), ValueError, "`epochs` must be a whole number >= 1, got 0"),
        (dict(metric="robust_accuracy"), ValueError, "the trainer measures .*accuracy"),
        (dict(fine_tune=3), TypeError, "`fine_tune` must be a function"),
        (dict(fine_tune=lambda m: 3), TypeError, "must return a Keras model"),
        (dict(fine_tune=until.copy_of), ValueError, "does not train the model it was given"),
        (dict(train_ds=[1]), TypeError, "`train_ds` must be a tf.data.Dataset"),
    ],
)
def test_errors(setting, arguments, error, match):
    model, data = setting
    arguments = {"train_ds": data, "validation_data": data, "verbose": 0, **arguments}
    with pytest.raises(error, match=match):
        prune_until(model, **arguments)


def test_a_wrong_metric_is_seen_after_one_batch(setting):
    model, data = setting
    seen = []
    many = 10 * int(data.cardinality())
    counted = data.repeat(10).map(
        lambda x, y: (tf.py_function(lambda x: seen.append(1) or x, [x], x.dtype), y)
    )
    counted = counted.map(lambda x, y: (tf.ensure_shape(x, (None, 12)), y))
    with pytest.raises(ValueError, match="`metric` is 'acc', but the trainer measures .'accuracy'"):
        prune_until(model, data, counted, metric="acc", verbose=0)
    # One is looked at to check the data, one to ask the trainer; a few are read ahead.
    assert 1 < len(seen) < many / 2


def test_a_recipe_sees_it_before_any_stage(setting):
    model, data = setting

    class Never(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            raise AssertionError("training started")

    def run(budget, **arguments):
        stages = [PruneNeurons(0.25, score="l1"), Prune(0.9, until=budget)]
        Recipe(stages).run(model, data, epochs=2, verbose=0, callbacks=[Never()], **arguments)

    for metric in ("robust_accuracy", "val_accuracy"):
        with pytest.raises(ValueError, match=f"`Budget.metric` is '{metric}', but the trainer"):
            run(Budget(metric=metric), validation_data=data)
    with pytest.raises(ValueError, match="`until` looks at 'accuracy' .* `validation_data`"):
        run(Budget())
    with pytest.raises(AssertionError, match="training started"):
        run(Budget(), validation_data=data)


def test_a_model_with_zeros_already_goes_on_to_more(setting):
    model, data = setting
    sparse = Prune(0.5).apply(model)
    run = prune_until(
        sparse, data, data, stage=Prune(0.6), most_loss=1.0, step=0.3, rounds=5, verbose=0
    )
    # 30% are zero before; the rounds at 51% and at 60% are the first with something to do.
    assert run.stopped == "sparsity"
    assert [row["round"] for row in run.rounds] == [2, 3]
    assert run.kept == pytest.approx(0.4, abs=0.01)


def test_data_is_looked_at_as_by_a_recipe(setting, ill_fitting):
    model, data = setting
    for train, validation, match in ill_fitting(data):
        with pytest.raises(ValueError, match=match):
            prune_until(model, train, validation, verbose=0)


def test_layers_of_two_factors_are_seen(setting):
    _, data = setting
    low = kr.layers.LowRankDense(8, 4, activation="relu", name="low")
    layers = [keras.Input((12,)), low, keras.layers.Dense(3, name="out")]
    model = keras.Sequential(layers)
    with pytest.raises(ValueError, match="{'low': 'LowRankDense'} with weights that Prune cannot"):
        prune_until(model, data, data, verbose=0)
    stage = Prune(0.5, layers=["out"])
    run = prune_until(model, data, data, stage=stage, most_loss=1.0, rounds=1, step=0.5, verbose=0)
    # 12 of 24 weights of `out`, all 48 + 32 of the other two.
    assert run.kept == pytest.approx((104 - 12) / 104)
