"""The shares of the paper, rewinding, controls, and rounds kept on disk."""

import json
import random

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.compress import _lottery as lottery
from keras_robust.compress import find_ticket
from keras_robust.compress._lottery_files import Folder
from keras_robust.compress._masks import find_kernels, masks_of, value_of


def make_model():
    starts = [keras.initializers.GlorotUniform(seed=i) for i in range(2)]
    hidden = keras.layers.Dense(10, "relu", kernel_initializer=starts[0], name="hidden")
    out = keras.layers.Dense(3, kernel_initializer=starts[1], name="out")
    return keras.Sequential([keras.Input((36,)), hidden, out])


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(0)
    x = generator.uniform(size=(96, 36)).astype("float32")
    y = np.argmax(x[:, :3], axis=1).astype("int32")
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(32)


@pytest.fixture(scope="module")
def search(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tickets") / "here"
    settings = dict(iterations=8, every=4, rounds=2, rewind=3, folder=folder, verbose=0)
    return settings, find_ticket(make_model(), data, data, **settings)


def kernel_of(model, name):
    return value_of(find_kernels(model)[name])


def test_shares_of_lenet_300_100():
    """(265,200 * 0.8^k + 1,000 * 0.9^k) / 266,200: 51.3, 21.1, 13.5 and 3.6%."""
    model = kr.zoo.lenet_300_100()
    values = {name: value_of(variable) for name, variable in find_kernels(model).items()}
    masks = {name: np.ones(value.shape, bool) for name, value in values.items()}
    assert sum(value.size for value in values.values()) == 266_200
    rates = lottery.layer_rates(list(masks), 0.2, None, "layer")
    assert rates == {"dense1": 0.2, "dense2": 0.2, "logits": 0.1}
    shares, counts = {}, {name: value.size for name, value in values.items()}
    for k in range(1, 16):
        masks = lottery.prune_more(masks, values, rates)
        for name in counts:
            counts[name] -= round(rates[name] * counts[name])
        assert {name: int(mask.sum()) for name, mask in masks.items()} == counts
        shares[k] = sum(counts.values()) / 266_200
        exact = (265_200 * 0.8**k + 1_000 * 0.9**k) / 266_200
        assert abs(shares[k] - exact) < 1e-5
    rounded = {k: round(100 * share, 1) for k, share in shares.items()}
    assert [rounded[k] for k in (3, 7, 9, 11, 15)] == [51.3, 21.1, 13.5, 8.7, 3.6]


def test_a_round_removes_the_smallest_of_what_is_left():
    masks = {"a": np.array([[True, True, False, True]]), "b": np.ones((2, 2), bool)}
    values = {"a": np.array([[0.0, 3.0, 9.0, -1e-9]]), "b": np.array([[0.5, 5.0], [6.0, 7.0]])}
    cut = lottery.prune_more(masks, values, {"a": 1 / 3, "b": 0.25})
    # The weight that is gone is not counted again, and a zero goes before 1e-9.
    assert cut["a"].tolist() == [[False, True, False, True]]
    assert cut["b"].tolist() == [[False, True], [True, True]]
    layers = {"a": np.array([1.0, 2.0]), "b": np.array([3.0, 4.0]), "out": np.array([0.1, 0.2])}
    full = {name: np.ones(2, bool) for name in layers}
    cut = lottery.prune_more(full, layers, dict(a=0.5, b=0.5, out=0.0), "global")
    assert [mask.tolist() for mask in cut.values()] == [[False] * 2, [True] * 2, [True] * 2]
    # The last weight stays.
    assert lottery.prune_more({"a": np.array([True])}, {"a": np.ones(1)}, {"a": 0.9})["a"].all()


def test_tickets_are_rewound_and_their_zeros_stay(search):
    settings, tickets = search
    whole, first, second = tickets.rounds
    assert whole.remaining == 1.0 and first.kept == {"hidden": (288, 360), "out": (27, 30)}
    assert second.kept["hidden"] == (230, 360)
    for found in tickets.rounds:
        trained = tickets.trained(found.number)
        ticket = tickets.ticket(found.number)
        assert found.iteration in (4, 8)
        best = 1 + int(np.argmin(found.trained.history["val_loss"]))
        assert found.iteration == 4 * best
        for name, mask in found.masks.items():
            rewound = kernel_of(tickets.model, name) * mask
            np.testing.assert_array_equal(kernel_of(ticket, name), rewound)
            np.testing.assert_array_equal(kernel_of(trained, name) != 0, mask)
        np.testing.assert_array_equal(masks_of(ticket)["hidden"], found.masks["hidden"])
    assert "remaining %" in tickets.summary() and " 63.8" not in tickets.summary()[:20]


def test_the_weights_rewound_to_are_those_after_that_step(search, data):
    model = make_model()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    model.fit(data.repeat(), steps_per_epoch=3, verbose=0, shuffle=False)
    # Biases too; a step moves a weight by up to a thousandth.
    for found, exact in zip(search[1].model.get_weights(), model.get_weights()):
        np.testing.assert_allclose(found, exact, atol=2e-5)


@pytest.mark.parametrize("monitor", ["val_accuracy", "val_loss"])
def test_the_best_round_is_the_most_accurate_or_the_one_of_least_loss(data, monitor):
    settings = dict(iterations=12, every=3, rounds=0, monitor=monitor, verbose=0)
    # Steps this long learn and then overshoot: neither end is the best.
    found = find_ticket(make_model(), data, data, **settings, optimizer=keras.optimizers.SGD(3.0))
    history = np.array(found.rounds[0].trained.history[monitor])
    best = np.argmax(history) if monitor == "val_accuracy" else np.argmin(history)
    assert len(set(history)) > 1 and found.rounds[0].iteration == 3 * (1 + best)
    assert found.rounds[0].trained.at_best[monitor] == history[best]


def test_an_output_rate_of_zero_spares_the_last_layer():
    assert lottery.layer_rates(["a", "out"], 0.2, 0.0, "layer") == {"a": 0.2, "out": 0.0}


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        (dict(rate={"hidden": 0.25, "out": 0.1}), {"hidden": (270, 360), "out": (27, 30)}),
        (dict(layers=["hidden"], rate={"hidden": 0.5}), {"hidden": (180, 360)}),
    ],
)
def test_rates_and_layers_of_a_search(data, settings, kept):
    found = find_ticket(
        make_model(), data, data, iterations=1, every=1, rounds=1, verbose=0, **settings
    )
    assert found.rounds[1].kept == kept
    trained = found.trained(1)
    for name in ("hidden", "out"):
        kernel = kernel_of(trained, name)
        assert np.count_nonzero(kernel) == kept.get(name, (kernel.size,))[0]


def test_masks_come_from_the_end_of_each_round(search):
    tickets = search[1]
    for before, after in zip(tickets.rounds, tickets.rounds[1:]):
        model = tickets.ticket(before.number)
        model.set_weights(before.trained.last_weights)
        sizes = np.abs(kernel_of(model, "hidden"))
        gone = before.masks["hidden"] & ~after.masks["hidden"]
        assert sizes[gone].max() <= sizes[after.masks["hidden"]].min()


def test_a_control_has_the_masks_and_other_weights(search):
    tickets = search[1]
    control, same = tickets.control(1), tickets.control(1)
    np.testing.assert_array_equal(control.masks["hidden"], tickets.rounds[1].masks["hidden"])
    assert control.trained.history == same.trained.history
    assert tickets.control(1, seed=2).trained.history != control.trained.history
    assert control.trained.history != tickets.rounds[1].trained.history


def test_rounds_there_are_not_trained_again(search, data, monkeypatch):
    settings, tickets = search
    monkeypatch.setattr(lottery, "train_iterations", None)
    again = find_ticket(make_model(), data, data, **settings)
    for old, new in zip(tickets.rounds, again.rounds):
        assert old.trained.history == new.trained.history and old.iteration == new.iteration
        np.testing.assert_array_equal(old.masks["hidden"], new.masks["hidden"])
    for old, new in zip(tickets.model.get_weights(), again.model.get_weights()):
        np.testing.assert_array_equal(old, new)
    with pytest.raises(ValueError, match="another seed: 0, not 1"):
        find_ticket(make_model(), data, data, **settings, seed=1)
    file = settings["folder"] / "settings.json"
    assert json.loads(file.read_text())["rewind"] == 3
    assert len(list(settings["folder"].iterdir())) == 4


def test_a_search_repeats_with_dropout_and_leaves_the_callers_randomness(data):
    model = make_model()
    model = keras.Sequential([keras.Input((36,)), *model.layers[:1], keras.layers.Dropout(0.5)])
    model.add(keras.layers.Dense(3, kernel_initializer="zeros", name="out"))
    random.seed(3)
    np.random.seed(3)
    before = random.getstate()
    found = []
    for _ in range(2):
        tickets = find_ticket(model, data, data, iterations=6, every=3, rounds=1, verbose=0)
        found.append([row.trained.last_weights for row in tickets.rounds])
        found[-1].append(tickets.control(1).trained.last_weights)
        assert random.getstate() == before
        random.random()
        before = random.getstate()
    for first, again in zip(*found):
        for a, b in zip(first, again):
            np.testing.assert_array_equal(a, b)


def test_robust_tickets(data):
    attack = kr.attacks.FGSM(eps=0.02)
    tickets = find_ticket(
        make_model(),
        data,
        data,
        iterations=3,
        every=3,
        rounds=1,
        rate=0.5,
        scope="global",
        fine_tune=lambda m: kr.AdversarialTraining(m, attack),
        verbose=0,
    )
    assert tickets.rounds[1].kept == {"hidden": (180, 360), "out": (22, 30)}
    assert "val_robust_accuracy" in tickets.rounds[1].trained.at_best


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (dict(iterations=10, every=4), "`iterations` must be a multiple of every=4, got 10"),
        (dict(iterations=0), "`iterations` must be a whole number >= 1"),
        (dict(rewind=100), "`rewind` must be below iterations=100"),
        (dict(rate=1.0), r"`rate` must be a number in \(0, 1\)"),
        (dict(output_rate=-0.1), r"`output_rate` must be in \[0, 1\), got -0.1"),
        (dict(rate={"hidden": 0.1}), r"`rate` must name every layer to prune"),
        (dict(rate={"hidden": 0.1, "out": 0.1}, scope="global"), "must be one number"),
        (dict(scope="all"), "'layer' or 'global'"),
    ],
)
def test_errors(data, arguments, match):
    with pytest.raises(ValueError, match=match):
        find_ticket(make_model(), data, data, **{"iterations": 100, **arguments})


def test_what_is_monitored_must_be_logged(data):
    with pytest.raises(ValueError, match="`monitor` must be one of .*'val_loss'"):
        find_ticket(make_model(), data, data, iterations=1, every=1, rounds=0, monitor="val_acc")


@pytest.mark.parametrize("monitor", ["val_acc", "val_robust_accuracy", 3])
def test_a_wrong_monitor_is_seen_before_training(data, monitor, monkeypatch, tmp_path):
    monkeypatch.setattr(lottery, "train_iterations", None)
    with pytest.raises(ValueError, match="`monitor` must be one of .*'val_accuracy', 'val_loss'"):
        find_ticket(
            make_model(), data, data, iterations=1, every=1, monitor=monitor, folder=tmp_path / "f"
        )
    assert not (tmp_path / "f").exists()


def test_a_folder_of_another_trainer_is_refused(data, tmp_path):
    def adversarial(eps, **settings):
        return lambda m: kr.AdversarialTraining(m, kr.attacks.FGSM(eps), **settings)

    def search(**arguments):
        settings = dict(iterations=2, every=2, rounds=0, folder=tmp_path, verbose=0)
        return find_ticket(make_model(), data, data, **settings, **arguments)

    search(fine_tune=adversarial(0.1), optimizer=keras.optimizers.SGD(0.5))
    for arguments, message in [
        (dict(), "another fine_tune: 'AdversarialTraining', not '(Sequential|Functional)'"),
        (dict(fine_tune=adversarial(0.2)), "another fine_tune.attack: .FGSM.eps=0.1.*eps=0.2"),
        (dict(fine_tune=adversarial(0.1, seed=1)), "another fine_tune.seed: 0, not 1"),
        (dict(fine_tune=adversarial(0.1), optimizer="adam"), "another optimizer: 'SGD', not 'Ad"),
    ]:
        arguments = dict(optimizer=keras.optimizers.SGD(0.5)) | arguments
        with pytest.raises(ValueError, match=message):
            search(**arguments)
    rate = keras.optimizers.SGD(0.25)
    with pytest.raises(ValueError, match="another optimizer.learning_rate: 0.5, not 0.25"):
        search(fine_tune=adversarial(0.1), optimizer=rate)
    # The same ones, made anew.
    search(fine_tune=adversarial(0.1), optimizer=keras.optimizers.SGD(0.5))


def test_no_rewinding_to_a_step_that_cannot_be_seen(data):
    def fine_tune(model):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, steps_per_execution=2)
        return model

    with pytest.raises(ValueError, match="steps_per_execution > 1"):
        find_ticket(make_model(), data, data, iterations=4, every=4, rewind=2, fine_tune=fine_tune)


def test_a_folder_without_rounds_takes_other_settings(tmp_path):
    weights = [np.zeros(2, "float32")]
    Folder(tmp_path, {"monitor": "val_acc"}, weights)
    Folder(tmp_path, {"monitor": "val_loss"}, weights)
    assert json.loads((tmp_path / "settings.json").read_text())["monitor"] == "val_loss"
    (tmp_path / "round_000.npz").touch()
    with pytest.raises(ValueError, match="another monitor: 'val_loss', not 'val_acc'"):
        Folder(tmp_path, {"monitor": "val_acc"}, weights)


def test_layers_of_two_factors_are_not_passed_over_in_silence():
    layers = [keras.Input((5,)), kr.layers.LowRankDense(6, 2, name="low"), keras.layers.Dense(3)]
    data = tf.data.Dataset.from_tensors((np.ones((2, 5), "float32"), np.arange(2)))
    with pytest.raises(ValueError, match="{'low': 'LowRankDense'} with weights that find_ticket"):
        find_ticket(keras.Sequential(layers), data, data, iterations=2, every=1, verbose=0)
