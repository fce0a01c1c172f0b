"""Ctrl-C waits for the step under way, once."""

import os
import signal
import threading
import time

import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.training._interrupt import CtrlC
from keras_robust.training.objectives import Madry


@pytest.fixture(autouse=True)
def handled():
    """Python's own handler, which a test in the background is not given."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)  # Python looks at signals between two operations.


def test_the_first_waits_until_it_is_asked_for(capsys):
    ctrl_c = CtrlC()
    with ctrl_c.held_back(lambda: True):
        ctrl_c.act()
        interrupt()
        assert "Stopping after this step" in capsys.readouterr().out
        with pytest.raises(KeyboardInterrupt):
            ctrl_c.act()
        ctrl_c.act()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_acts_at_once():
    with CtrlC().held_back(lambda: True):
        interrupt()
        with pytest.raises(KeyboardInterrupt):
            interrupt()


def test_with_nothing_under_way_the_first_acts_at_once():
    with CtrlC().held_back(lambda: False), pytest.raises(KeyboardInterrupt):
        interrupt()


def test_another_handler_and_another_thread_stay_as_they_are():
    seen = []
    signal.signal(signal.SIGINT, lambda *_: seen.append("own"))
    with CtrlC().held_back(lambda: True):
        interrupt()
    assert seen == ["own"]

    def run():
        with CtrlC().held_back(lambda: True):
            seen.append("thread")

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == ["own", "thread"]


class Interrupting(Madry):
    """Ctrl-C inside every step."""

    def perturb(self, step, x, y):
        tf.numpy_function(interrupt, [], [])
        return super().perturb(step, x, y)


@pytest.mark.parametrize("known", [True, False])
def test_the_last_step_of_an_epoch_leaves_no_state_without_batches(cnn, blobs, tmp_path, known):
    """With it the epoch is kept; one whose length nobody knows is repeated."""
    data = tf.data.Dataset.from_tensor_slices(blobs(4)).batch(4)
    data = data if known else data.filter(lambda *_: True)
    trainer = kr.AdversarialTraining(cnn(), kr.attacks.FGSM(0.1), Interrupting())
    trainer.compile("sgd")
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(data, epochs=3, resume=tmp_path, verbose=0)
    assert (tmp_path / "state.npz").exists() is known
