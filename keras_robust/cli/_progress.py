"""Progress goes to stderr: stdout holds the result alone."""

import sys

from keras_robust._keras import keras


def say(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)


class EpochLines(keras.callbacks.Callback):
    """A line of progress after each epoch, and what trials found out before the first."""

    def __init__(self, epochs: int, say):
        super().__init__()
        self.epochs, self.say = epochs, say

    def on_train_begin(self, logs=None):
        for trial in self.model.trials:
            self.say(f"  {trial}")

    def on_epoch_end(self, epoch, logs=None):
        values = "  ".join(f"{name} {value:.3f}" for name, value in (logs or {}).items())
        self.say(f"  epoch {epoch + 1}/{self.epochs}  {values}")
