"""A training that is killed and started again ends with the weights of one that was not."""

import collections
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import LEGACY, keras, steps_taken

# Run in a process of its own, so that it can be killed.
SCRIPT = textwrap.dedent(
    """
    import os, signal, sys
    import numpy as np, tensorflow as tf
    import keras_robust as kr
    from keras_robust._keras import keras

    folder, weights, die_in, death = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Ignored in the background.
    generator = np.random.default_rng(0)
    x, y = generator.uniform(size=(64, 5, 5, 1)).astype("float32"), np.arange(64) % 3
    data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(64, seed=1).batch(16)
    start = keras.initializers.GlorotUniform(seed=0)
    layers = [keras.layers.Conv2D(4, 3, kernel_initializer=start)]
    layers += [keras.layers.BatchNormalization()]
    layers += [keras.layers.Flatten(), keras.layers.Dense(3, kernel_initializer=start)]
    model = keras.Sequential([keras.Input((5, 5, 1)), *layers])
    steps = []

    class Dying(kr.objectives.Madry):
        "Dies inside a step, where a process is nearly all the time."

        def perturb(self, step, x, y):
            tf.numpy_function(self.die, [], [])
            return super().perturb(step, x, y)

        def die(self):
            steps.append(None)
            if len(steps) == die_in:
                os.kill(os.getpid(), death)

    trainer = kr.AdversarialTraining(
        model, kr.attacks.PGD(0.1, steps=2), Dying(), eps_ramp=kr.training.Ramp(steps=14)
    )
    trainer.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, 20)))
    average = kr.training.WeightAverage(decay=0.5)
    history = trainer.fit(data, epochs=5, resume=folder, callbacks=[average], verbose=0)
    assert len(history.history["loss"]) == 5 and history.epoch == [0, 1, 2, 3, 4]
    with average.applied():
        averaged = model.get_weights()
    np.savez(weights, *model.get_weights(), *averaged, loss=history.history["loss"])
    """
)


def run(folder, weights, die_in=0, death=signal.SIGKILL):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, folder, weights, str(die_in), str(int(death))],
        capture_output=True,
        text=True,
        env=dict(os.environ),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The weights and losses of a run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    done = run(folder, folder / "whole.npz")
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(np.load(folder / "whole.npz"))


def check_same(folder, whole):
    resumed = run(folder, folder / "weights.npz")
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    got = np.load(folder / "weights.npz")
    for name, expected in whole.items():
        np.testing.assert_array_equal(got[name], expected, err_msg=name)


def test_kill_9_and_again_gives_the_same_weights(whole, tmp_path):
    """Killed in the middle of the second epoch, then of the fourth; 4 batches an epoch."""
    for die_in in (6, 9):
        killed = run(tmp_path, tmp_path / "weights.npz", die_in)
        assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
        assert not (tmp_path / "weights.npz").exists()
    check_same(tmp_path, whole)


def test_ctrl_c_keeps_the_step(whole, tmp_path):
    """In the first epoch, in the second and once more in it, and in the last step of one.

    That one is kept with its epoch, of which nothing is left to be done.
    """
    for die_in, done in ((3, 3), (2, 1), (2, 3), (5, 0)):
        interrupted = run(tmp_path, tmp_path / "weights.npz", die_in, signal.SIGINT)
        assert "KeyboardInterrupt" in interrupted.stderr, interrupted.stderr[-2000:]
        assert "Stopping after this step; Ctrl-C again stops at once." in interrupted.stdout
        assert json.loads(str(np.load(tmp_path / "state.npz")["meta"]))["batches"] == done
    check_same(tmp_path, whole)


def make_trainer(model, attack=None):
    trainer = kr.AdversarialTraining(model, attack or kr.attacks.FGSM(0.1))
    trainer.compile("sgd")
    return trainer


@pytest.fixture
def data(blobs):
    return tf.data.Dataset.from_tensor_slices(blobs(32)).batch(16)


def test_state_of_another_run_is_refused(cnn, data, tmp_path):
    make_trainer(cnn()).fit(data, resume=tmp_path, verbose=0)
    with pytest.raises(ValueError, match="belongs to another run: it was .*eps=0.1.*eps=0.2"):
        other = make_trainer(cnn(), kr.attacks.FGSM(0.2))
        other.fit(data, resume=tmp_path, verbose=0)


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"eps_ramp": kr.training.Ramp(steps=5)},
        {"accumulate": 2},
        {"attack_dtype": "bfloat16"},
        {"objective": kr.objectives.MART()},
        {"optimizer": keras.optimizers.Nadam},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_each_setting_belongs_to_the_run(cnn, data, tmp_path, changed):
    def fit(optimizer=keras.optimizers.Adam, **settings):
        trainer = kr.AdversarialTraining(cnn(), kr.attacks.FGSM(0.1), **settings)
        trainer.compile(optimizer(0.01))
        trainer.fit(data, resume=tmp_path, verbose=0)

    fit()
    with pytest.raises(ValueError, match="belongs to another run: it was "):
        fit(**changed)


def test_state_of_other_settings_is_refused(cnn, data, tmp_path):
    def fit(optimizer, *callbacks):
        trainer = kr.AdversarialTraining(cnn(), kr.attacks.FGSM(0.1))
        trainer.compile(optimizer)
        trainer.fit(data, resume=tmp_path, callbacks=list(callbacks), verbose=0)

    fit(keras.optimizers.Adam())
    for changed in (
        [keras.optimizers.Adam(use_ema=True)],
        ["adam", kr.training.WeightAverage(0.9)],
    ):
        with pytest.raises(
            ValueError, match="another run: '(callback|optimizer)_.* settings or the"
        ):
            fit(*changed)


def test_finished_run_is_not_trained_again(cnn, data, tmp_path):
    model = cnn()
    make_trainer(model).fit(data, epochs=2, resume=tmp_path, verbose=0)
    again = cnn(seed=5)
    history = make_trainer(again).fit(data, epochs=2, resume=tmp_path, verbose=0)
    assert len(history.history["loss"]) == 2
    for a, b in zip(model.get_weights(), again.get_weights()):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("content", [b"", b"PK not a zip", b"PK\x03\x04 torn", b"text"])
def test_damaged_state_is_named(cnn, data, tmp_path, content):
    (tmp_path / "state.npz").write_bytes(content)
    with pytest.raises(ValueError, match="state.npz is not a training state.*Delete it"):
        make_trainer(cnn()).fit(data, resume=tmp_path, verbose=0)


def test_unwritable_folder_is_refused_before_training(cnn, data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="`resume`: cannot write"):
        make_trainer(cnn()).fit(data, resume=tmp_path / "file" / "folder", verbose=0)


def test_a_full_disk_is_refused_before_training(cnn, data, tmp_path, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 500, 500))
    model = cnn()
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"`resume`: .*state.npz.*500 bytes left.* takes [0-9,]+"):
        make_trainer(model).fit(data, resume=tmp_path, verbose=0)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_carried_needs_room_too(cnn, blobs, tmp_path, monkeypatch):
    """In each of the two states that are there while one replaces the other."""
    data = tf.data.Dataset.from_tensor_slices(blobs(64)).batch(64)
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6, 0))
    needed = []
    for objective in (kr.objectives.Madry(), kr.objectives.Free(2)):
        trainer = kr.AdversarialTraining(cnn(), kr.attacks.FGSM(0.1), objective)
        trainer.compile("sgd")
        with pytest.raises(ValueError, match="the state of training takes") as caught:
            trainer.fit(data, resume=tmp_path, verbose=0)
        digits = str(caught.value).split("takes ")[1].split(", while")[0]
        needed.append(int(digits.replace(",", "")))
    assert needed[1] - needed[0] == 2 * 64 * 6 * 6 * 4


class Stopping(keras.callbacks.Callback):
    """Ctrl-C after a batch of the second epoch."""

    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (1, self.batch):
            raise KeyboardInterrupt


def free(model):
    return kr.AdversarialTraining(model, kr.attacks.PGD(0.1), kr.objectives.Free(replays=2))


def feedback(model):
    # Layers without a name of their own have others in the next model of a process.
    return kr.training.LayerFeedback(model, kr.attacks.PGD(0.1, "l2", steps=2), ["input"], pool=8)


@pytest.mark.parametrize("make", [free, feedback])
def test_ctrl_c_inside_an_epoch_keeps_what_is_carried(cnn, blobs, tmp_path, make):
    """Replays of a batch are steps of the optimizer, and the orders are those of a seed."""
    weights = {}
    for run in ("whole", "again"):
        for again in range(1 + (run == "again")):
            model = cnn()
            trainer = make(model)
            trainer.compile(keras.optimizers.Adam(0.01))
            data = tf.data.Dataset.from_tensor_slices(blobs(40)).shuffle(40, seed=2).batch(8)
            stop = [Stopping(2)] if run == "again" and not again else []
            with pytest.raises(KeyboardInterrupt) if stop else contextlib.nullcontext():
                trainer.fit(data, epochs=3, resume=tmp_path / run, callbacks=stop, verbose=0)
            if stop:
                with np.load(tmp_path / run / "state.npz") as state:
                    meta = json.loads(str(state["meta"]))
                assert (meta["next"], meta["batches"]) == (1, 3)
        weights[run] = model.get_weights()
    for one, other in zip(*weights.values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_ctrl_c_after_a_loss_that_is_no_number_keeps_the_state_before(cnn, blobs, tmp_path):
    def rate(step):
        return tf.where(tf.cast(step, tf.int32) < 6, 0.01, np.inf)

    class Late(keras.optimizers.schedules.LearningRateSchedule):
        __call__ = staticmethod(rate)

    data = tf.data.Dataset.from_tensor_slices(blobs(48)).batch(8)
    trainer = kr.AdversarialTraining(cnn(), kr.attacks.FGSM(0.1))
    trainer.compile(keras.optimizers.SGD(Late()))
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(data, epochs=2, resume=tmp_path, callbacks=[Stopping(4)], verbose=0)
    assert not np.all([np.isfinite(weight).all() for weight in trainer.model.get_weights()])
    with np.load(tmp_path / "state.npz") as state:
        assert json.loads(str(state["meta"]))["next"] == 1
        for name in state.files:
            assert name == "meta" or np.isfinite(state[name]).all()


@pytest.mark.parametrize(("seed", "warned"), [(None, True), (0, False)])
def test_a_shuffle_without_seed_is_warned_of(cnn, blobs, tmp_path, seed, warned):
    tf.random.set_seed(None)  # One that a test before has set is a seed too.
    data = tf.data.Dataset.from_tensor_slices(blobs(16)).shuffle(16, seed=seed)
    data = data.batch(8).map(lambda x, y: (x, y)).prefetch(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_trainer(cnn()).fit(data, resume=tmp_path, verbose=0)
    said = [w for w in caught if "`x` shuffles without a seed" in str(w.message)]
    assert bool(said) == warned
    assert not said or said[0].filename == __file__


def test_what_a_killed_process_left_is_taken_away(cnn, data, tmp_path):
    (tmp_path / ".state.npz.abc").mkdir()
    (tmp_path / ".state.npz.abc" / "state.npz").write_bytes(b"half")
    make_trainer(cnn()).fit(data, resume=tmp_path, verbose=0)
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]


@pytest.mark.skipif(LEGACY, reason="its optimizers do not accumulate")
def test_steps_of_an_accumulating_optimizer_are_batches(cnn, data):
    seeds = []

    class Seen(kr.objectives.Madry):
        def perturb(self, step, x, y):
            tf.py_function(lambda seed: seeds.append(tuple(seed.numpy())), [step.seed], [])
            return x

    trainer = kr.AdversarialTraining(cnn(), kr.attacks.FGSM(0.1), Seen())
    adam = keras.optimizers.Adam(0.01, gradient_accumulation_steps=4)
    trainer.compile(adam, jit_compile=False)
    trainer.fit(data, epochs=3, verbose=0)
    assert int(steps_taken(trainer)) == 6 and len(set(seeds)) == 6


def test_orders_that_cannot_be_repeated_are_refused(cnn, data, blobs, tmp_path):
    with pytest.raises(ValueError, match="`resume` needs `x` to be a tf.data.Dataset"):
        make_trainer(cnn()).fit(*blobs(32), resume=tmp_path, verbose=0)
    with pytest.raises(ValueError, match="`steps_per_epoch` must be None with `resume`"):
        make_trainer(cnn()).fit(data, resume=tmp_path, steps_per_epoch=1, verbose=0)
    for x in ((data,), blobs(32)):
        with pytest.raises(TypeError, match="`resume` must be the path of a folder, got 3"):
            make_trainer(cnn()).fit(*x, resume=3, verbose=0)


def test_no_temporary_file_stays(cnn, data, tmp_path):
    make_trainer(cnn()).fit(data, resume=tmp_path, epochs=2, verbose=0)
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]


def fit_in_parts(model, data, folder, parts, optimizer="sgd", **settings):
    """Fits up to each number of epochs in `parts`, with a new trainer each time."""
    for epochs in parts:
        trainer = kr.AdversarialTraining(model, kr.attacks.FGSM(0.1))
        trainer.compile(optimizer() if callable(optimizer) else optimizer)
        history = trainer.fit(data(), epochs=epochs, resume=folder, verbose=0, **settings)
    return trainer, history


def assert_same_weights(one, other):
    for a, b in zip(one.get_weights(), other.get_weights()):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_learning_rate_set_by_a_callback_is_kept(blobs, tmp_path, precision):
    x, y = blobs(32)

    def data():
        return tf.data.Dataset.from_tensor_slices((x, y)).shuffle(32, seed=0).batch(16)

    def model():
        start = keras.initializers.GlorotUniform(seed=0)
        dense = keras.layers.Dense(3, kernel_initializer=start, dtype=precision)
        return keras.Sequential([keras.Input((6, 6, 1)), keras.layers.Flatten(), dense])

    def halve():
        return [keras.callbacks.LearningRateScheduler(lambda epoch, rate: float(rate) / 2)]

    def optimizer():
        return keras.optimizers.Adam(0.1)

    whole, parts = model(), model()
    fit_in_parts(whole, data, tmp_path / "a", [4], optimizer, callbacks=halve())
    trainer, _ = fit_in_parts(parts, data, tmp_path / "b", [2, 4], optimizer, callbacks=halve())
    np.testing.assert_allclose(float(trainer.optimizer.learning_rate), 0.1 / 16, rtol=1e-6)
    assert_same_weights(whole, parts)


def test_epoch_numbers_go_on_from_initial_epoch(cnn, data, tmp_path):
    _, first = fit_in_parts(cnn(), lambda: data, tmp_path, [4], initial_epoch=2)
    assert first.epoch == [2, 3]
    _, second = fit_in_parts(cnn(), lambda: data, tmp_path, [6], initial_epoch=2)
    assert second.epoch == [2, 3, 4, 5] and len(second.history["loss"]) == 4


def test_dropout_resumes_exactly_or_warns(blobs, tmp_path):
    x, y = blobs(32)

    def data():
        return tf.data.Dataset.from_tensor_slices((x, y)).batch(16)

    def model():
        start = keras.initializers.GlorotUniform(seed=0)
        layers = [keras.layers.Flatten(), keras.layers.Dropout(0.5, seed=1, name="drop")]
        layers += [keras.layers.Dense(3, kernel_initializer=start)]
        return keras.Sequential([keras.Input((6, 6, 1)), *layers])

    whole, parts = model(), model()
    if LEGACY:
        with pytest.warns(UserWarning, match="random numbers of layer 'drop' cannot be resumed"):
            fit_in_parts(whole, data, tmp_path / "a", [1])
        return
    fit_in_parts(whole, data, tmp_path / "a", [3])
    fit_in_parts(parts, data, tmp_path / "b", [1, 3])
    assert_same_weights(whole, parts)


def test_a_single_callback_is_taken(cnn, data, tmp_path):
    stop = keras.callbacks.EarlyStopping("loss", min_delta=100.0, patience=1)
    _, history = fit_in_parts(cnn(), lambda: data, tmp_path, [5], callbacks=stop)
    assert history.epoch == [0, 1]


def test_a_dataset_that_was_trained_on_is_warned_of(cnn, blobs, tmp_path):
    def shuffled():
        return tf.data.Dataset.from_tensor_slices(blobs(48)).shuffle(48, seed=1).batch(16)

    trainer, data, settings = make_trainer(cnn()), shuffled(), dict(verbose=0, resume=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        trainer.fit(data, epochs=1, **settings)
        trainer.fit(shuffled(), epochs=2, **settings)
    with pytest.warns(UserWarning, match="make the dataset anew before `fit`"):
        trainer.fit(data, epochs=3, **settings)


class InterruptAt(keras.callbacks.Callback):
    """Ctrl-C before the step of this number."""

    def __init__(self, number):
        super().__init__()
        self.left = number

    def on_train_batch_begin(self, batch, logs=None):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1


@pytest.mark.parametrize("known", [True, False])
def test_the_orders_of_a_seeded_shuffle_come_again(cnn, blobs, tmp_path, known):
    """Whether or not Keras can know how many batches there are."""

    def data():
        shuffled = tf.data.Dataset.from_tensor_slices(blobs(48)).shuffle(48, seed=1)
        return (shuffled if known else shuffled.filter(lambda *_: True)).batch(16)

    whole, halves, cut = cnn(), cnn(), cnn()
    fit_in_parts(whole, data, tmp_path / "a", [4])
    fit_in_parts(halves, data, tmp_path / "b", [2, 4])
    assert_same_weights(whole, halves)
    with pytest.raises(KeyboardInterrupt):
        fit_in_parts(cut, data, tmp_path / "c", [4], callbacks=[InterruptAt(5)])
    fit_in_parts(cut, data, tmp_path / "c", [4])
    assert_same_weights(whole, cut)


def interrupted(model, data, folder, optimizer="sgd"):
    """Before the fourth step, the second of its epoch."""
    with pytest.raises(KeyboardInterrupt):
        fit_in_parts(model, lambda: data, folder, [4], optimizer, callbacks=[InterruptAt(3)])


def test_an_epoch_that_was_gone_on_with_can_end_the_run(cnn, data, tmp_path):
    model = cnn()
    interrupted(model, data, tmp_path)
    stop = keras.callbacks.TerminateOnNaN()
    stop.on_epoch_end = lambda epoch, logs=None: setattr(stop.model, "stop_training", True)
    _, history = fit_in_parts(model, lambda: data, tmp_path, [4], callbacks=[stop])
    assert history.epoch == [0, 1]


def test_averaged_weights_are_taken_at_the_end_alone(cnn, data, tmp_path):
    """By an optimizer with `use_ema`, also where an epoch was gone on with."""

    def optimizer():
        return keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)

    whole, parts = cnn(), cnn()
    fit_in_parts(whole, lambda: data, tmp_path / "a", [4], optimizer)
    interrupted(parts, data, tmp_path / "b", optimizer)
    fit_in_parts(parts, lambda: data, tmp_path / "b", [4], optimizer)
    assert_same_weights(whole, parts)


def test_mixed_precision_goes_on_with_the_same_trainer(blobs, tmp_path):
    data = tf.data.Dataset.from_tensor_slices(blobs(32)).batch(16)
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        layers = [keras.layers.Flatten(), keras.layers.Dense(3)]
        model = keras.Sequential([keras.Input((6, 6, 1)), *layers])
    finally:
        keras.mixed_precision.set_global_policy("float32")
    trainer = make_trainer(model)
    for epochs in (1, 2):
        history = trainer.fit(data, epochs=epochs, resume=tmp_path, verbose=0)
    assert history.epoch == [0, 1]
