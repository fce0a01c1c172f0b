"""A loss that is not a number ends training, with its batch in a file."""

import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import keras
from keras_robust.training._evidence import Evidence


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
    message = f"step 4 is not finite.* is in {tmp_path}.*nan_batch.npz.*last whole epoch"
    with pytest.raises(FloatingPointError, match=message):
        trainer.fit(data, epochs=2, verbose=0, resume=tmp_path)
    kept = np.load(tmp_path / "nan_batch.npz")
    assert kept["step"] == 4
    np.testing.assert_array_equal(kept["x"], x[32:40])
    np.testing.assert_array_equal(kept["y"], y[32:40])
    assert kept["x_adv"].shape == (8, 6, 6, 1) and np.ptp(kept["x_adv"] - kept["x"]) >= 0
    assert not (tmp_path / "state.npz").exists()  # nothing broken is kept to go on from


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
