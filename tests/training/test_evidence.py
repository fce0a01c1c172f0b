"""A loss that is not a number ends training, with its batch in a file."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras, steps_taken
from keras_robust.training import _evidence
from keras_robust.training._evidence import Evidence, StopAtNaN


class Late(keras.optimizers.schedules.LearningRateSchedule):
    """Zero before a step, infinite from it on."""

    def __init__(self, start):
        self.start = start

    def __call__(self, step):
        return tf.where(tf.cast(step, tf.int32) < self.start, 0.0, np.inf)


def diverging(cnn, bad_step):
    """A trainer whose loss is infinite from step `bad_step` on, and the batches."""
    model = cnn()
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(50, 6, 6, 1)).astype("float32")
    y = (np.arange(50) % 3).astype("int32")
    trainer = kr.AdversarialTraining(model, kr.attacks.FGSM(0.1))
    return trainer, keras.optimizers.SGD(Late(bad_step)), x, y


@pytest.mark.parametrize("jit", [False, True])
def test_training_stops_and_the_batch_is_kept(cnn, tmp_path, jit):
    trainer, optimizer, x, y = diverging(cnn, bad_step=3)
    trainer.compile(optimizer, jit_compile=jit)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    # Step 3 leaves no weight finite, so step 4 is the first with a bad loss.
    message = f"step 4 is not finite.* is in {tmp_path}.*nan_batch.npz .x, x_adv, y.\\. A lower"
    with pytest.raises(FloatingPointError, match=message):
        trainer.fit(data, epochs=2, verbose=0, resume=tmp_path)
    kept = np.load(tmp_path / "nan_batch.npz")
    assert kept["step"] == 4
    np.testing.assert_array_equal(kept["x"], x[32:40])
    np.testing.assert_array_equal(kept["y"], y[32:40])
    assert kept["x_adv"].shape == (8, 6, 6, 1)
    assert not (tmp_path / "state.npz").exists()  # nothing broken is kept to go on from


def test_the_state_before_is_named_and_the_adversarial_batch_kept(cnn, tmp_path):
    """The loss alone is not finite, so the attack has found its examples."""
    model, attack = cnn(), kr.attacks.FGSM(0.1)
    _, _, x, y = diverging(cnn, 0)

    def loss(labels, logits):
        wrong = tf.where(steps_taken(trainer) < 4, 0.0, np.inf)
        return keras.losses.sparse_categorical_crossentropy(labels, logits, True) + wrong

    trainer = kr.AdversarialTraining(model, attack)
    trainer.compile(keras.optimizers.SGD(0.0), loss)
    data = tf.data.Dataset.from_tensor_slices((x[:32], y[:32])).batch(8)
    message = "step 4 is not finite.*state.npz holds the state before"
    before = model.get_weights()
    with pytest.raises(FloatingPointError, match=message):
        trainer.fit(data, epochs=2, verbose=0, resume=tmp_path)
    kept = np.load(tmp_path / "nan_batch.npz")
    model.set_weights(before)  # A rate of 0 times an infinite gradient is no number either.
    np.testing.assert_array_equal(kept["x"], x[:8])
    np.testing.assert_allclose(kept["x_adv"], attack(model, x[:8], y[:8]), atol=1e-6)
    assert np.abs(kept["x_adv"] - kept["x"]).max() > 0.09


class Two:
    """What `Evidence` asks of a strategy, with two replicas."""

    num_replicas_in_sync = 2

    def __init__(self):
        self.values = {}

    def scope(self):
        return contextlib.nullcontext()

    def experimental_local_results(self, variable):
        return self.values[variable.ref()]


def test_the_replica_that_was_first_is_kept_alone():
    """Its gradients make the loss of the other one bad in the next step."""
    strategy, x, y = Two(), tf.zeros([4, 2]), tf.range(4)
    evidence = Evidence(strategy, 4, x, y)
    replicas = []
    for number, (step, value) in enumerate([(8, 1.0), (7, 2.0)]):
        own = Evidence(tf.distribute.get_strategy(), 2, x, y)
        own.look(tf.constant(np.nan), step, x[:2] + value, x[:2], y[:2] + number)
        replicas.append(own)
    for name in ("found", "x", "x_adv", "y"):
        values = tuple(getattr(own, name) for own in replicas)
        strategy.values[getattr(evidence, name).ref()] = values
    found = evidence.collect()
    assert found["step"] == 7
    np.testing.assert_array_equal(found["x"], np.full((2, 2), 2.0))
    assert found["y"].tolist() == [1, 2]


def test_each_worker_has_its_own_file(cnn, tmp_path, monkeypatch):
    for number, name in ((0, "nan_batch.npz"), (2, "nan_batch_2.npz")):
        monkeypatch.setattr(_evidence, "worker_index", lambda number=number: number)
        evidence = Evidence(tf.distribute.get_strategy(), 1, tf.zeros([1, 2]), tf.range(1))
        evidence.look(tf.constant(np.nan), 3, tf.zeros([1, 2]), tf.zeros([1, 2]), tf.range(1))
        with pytest.raises(FloatingPointError, match=f"{name} "):
            StopAtNaN(evidence, tmp_path).on_epoch_end(0)
        assert (tmp_path / name).exists()


def test_a_larger_batch_is_kept_whole(cnn):
    trainer, optimizer, x, y = diverging(cnn, bad_step=3)
    trainer.compile("sgd")
    trainer.fit(x, y, batch_size=25, epochs=2, verbose=0)
    trainer.compile(keras.optimizers.SGD(np.inf))
    with pytest.raises(FloatingPointError) as caught:
        trainer.fit(x, y, batch_size=50, epochs=3, shuffle=False, verbose=0)
    path = str(caught.value).split(" is in ")[1].split(" (x,")[0]
    np.testing.assert_array_equal(np.load(path)["x"], x)


def test_without_resume_the_message_names_a_temporary_file(cnn):
    trainer, optimizer, x, y = diverging(cnn, bad_step=1)
    trainer.compile(optimizer)
    with pytest.raises(FloatingPointError, match="training step 2 is not finite") as caught:
        trainer.fit(x, y, batch_size=10, shuffle=False, verbose=0)
    path = str(caught.value).split(" is in ")[1].split(" (x,")[0]
    np.testing.assert_array_equal(np.load(path)["x"], x[20:30])


def test_a_finite_run_keeps_nothing_and_the_first_bad_batch_stays():
    x, y = tf.zeros([4, 2]), tf.range(4)
    evidence = Evidence(tf.distribute.get_strategy(), 4, x, y)
    evidence.look(tf.constant(1.0), 0, x, x, y)
    assert evidence.collect() is None
    evidence.look(tf.constant(np.inf), 5, x[:3] + 1, x[:3] + 2, y[:3])
    evidence.look(tf.constant(np.nan), 6, x, x, y)
    found = evidence.collect()
    assert found["step"] == 5 and found["y"].tolist() == [0, 1, 2]
    assert found["x"].tolist() == [[1, 1]] * 3 and found["x_adv"].tolist() == [[2, 2]] * 3
    evidence.forget()
    assert evidence.collect() is None


def test_batches_that_cannot_be_seen_before_stop_too(cnn):
    trainer, optimizer, x, y = diverging(cnn, bad_step=3)
    trainer.compile(optimizer, jit_compile=False)

    def batches():
        for start in range(0, 48, 8):
            yield x[start : start + 8], y[start : start + 8]

    with pytest.raises(FloatingPointError, match="The loss of training is not finite"):
        trainer.fit(batches(), steps_per_epoch=6, epochs=1, verbose=0)


def test_another_fit_may_have_other_labels(cnn):
    """And what is found goes into the file of the data that are trained on then."""
    trainer, optimizer, x, y = diverging(cnn, bad_step=6)
    trainer.compile("sgd", jit_compile=False)
    trainer.fit(x[:16], y[:16], batch_size=8, verbose=0)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    trainer.compile("sgd", loss, jit_compile=False)
    trainer.fit(x[:16], np.eye(3, dtype="float32")[y[:16]], batch_size=8, verbose=0)
    trainer.compile(optimizer, jit_compile=False)
    with pytest.raises(FloatingPointError, match="step 7 is not finite"):
        trainer.fit(x, y, batch_size=8, epochs=2, verbose=0)
