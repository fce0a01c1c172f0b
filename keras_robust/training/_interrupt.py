"""Ctrl-C that waits for the step under way, and what must be so after it."""

import contextlib
import functools
import signal
import threading


class CtrlC:
    """Holds the first Ctrl-C back while something is under way; a second one acts at once.

    Python raises `KeyboardInterrupt` the moment TensorFlow gives the processor back: the weights
    have moved by then, and no callback knows of it.

    Attributes:
        waiting: whether one is held back.
    """

    def __init__(self):
        self.waiting = False

    @contextlib.contextmanager
    def held_back(self, while_):
        """Inside, Ctrl-C waits while `while_()` is true, and is said to.

        A program that handles the signal itself goes on doing so, and so does a thread that is
        not the main one.
        """
        before = signal.getsignal(signal.SIGINT)
        main = threading.current_thread() is threading.main_thread()
        if not main or before is not signal.default_int_handler:
            yield
            return

        def handle(number, frame):
            if self.waiting or not while_():
                before(number, frame)
            self.waiting = True
            print("\nStopping after this step; Ctrl-C again stops at once.", flush=True)

        signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def act(self):
        """Raises `KeyboardInterrupt` if one is held back."""
        if self.waiting:
            self.waiting = False
            raise KeyboardInterrupt


def keeps_objective(fit):
    """A `fit` whose trainer has, however it ends, the objective that it was given.

    A callback may change it, and Keras tells callbacks nothing of an exception.
    """

    @functools.wraps(fit)
    def kept(self, *args, **kwargs):
        objective = self.objective
        try:
            return fit(self, *args, **kwargs)
        finally:
            if self.objective is not objective:
                self.objective, self.train_function = objective, None

    return kept
