"""Training for a number of iterations, and when early stopping would have ended it."""

from dataclasses import dataclass

import numpy as np

from keras_robust._keras import keras


@dataclass(frozen=True)
class Trained:
    """What one training came to.

    Attributes:
        iteration: after which the monitored number was best; early stopping, told afterwards.
        at_best: what `fit` logged then, by name.
        at_end: what it logged last.
        history: all of it, a list a name, an entry every `every` iterations.
        weights: the model's arrays at `iteration`.
        last_weights: those at the end.
    """

    iteration: int
    at_best: dict
    at_end: dict
    history: dict
    weights: list
    last_weights: list


def train_iterations(
    trainer, model, train_ds, validation_data, *, iterations, every, monitor, callbacks=()
) -> Trained:
    """Trains for `iterations` batches, going on into `train_ds` anew, validating `every` so many.

    Args:
        trainer: compiled, of `model`.
        monitor: a name that `fit` logs, such as "val_loss"; with "loss" in it the smallest is
            best, else the largest.

    Raises:
        ValueError: `monitor` is not logged, or was never a number.
    """
    keep = KeepBest(model, monitor, every)
    history = trainer.fit(
        train_ds.repeat(),
        steps_per_epoch=every,
        epochs=max(iterations // every, 1),
        validation_data=validation_data,
        callbacks=[keep, *callbacks],
        verbose=0,
        shuffle=False,
    ).history
    history = {name: [float(value) for value in values] for name, values in history.items()}
    if keep.weights is None:
        raise ValueError(f"`monitor`={monitor!r} was never a number: the training diverged.")
    at_end = {name: values[-1] for name, values in history.items()}
    return Trained(keep.iteration, keep.logs, at_end, history, keep.weights, model.get_weights())


class KeepBest(keras.callbacks.Callback):
    """Keeps the weights of the best validation."""

    def __init__(self, model, monitor, every):
        super().__init__()
        self._watched, self._monitor, self._every = model, monitor, every
        self._sign = -1.0 if "loss" in monitor else 1.0
        self._best, self.iteration, self.logs, self.weights = -np.inf, None, None, None

    def on_epoch_end(self, epoch, logs=None):
        if self._monitor not in (logs or {}):
            raise ValueError(
                f"`monitor` must be one of {sorted(logs or {})}, got {self._monitor!r}."
            )
        value = self._sign * float(logs[self._monitor])
        if value > self._best:
            self._best, self.iteration = value, (epoch + 1) * self._every
            self.logs = {name: float(number) for name, number in logs.items()}
            self.weights = self._watched.get_weights()


class Snapshot(keras.callbacks.Callback):
    """Keeps the weights after so many batches."""

    def __init__(self, model, step):
        super().__init__()
        self._watched, self._step, self._seen, self.weights = model, step, 0, None

    def on_train_batch_end(self, batch, logs=None):
        self._seen += 1
        if self._seen == self._step:
            self.weights = self._watched.get_weights()

    def on_epoch_end(self, epoch, logs=None):
        if self._seen != (epoch + 1) * self.params["steps"]:
            raise ValueError(
                "`rewind` must be 0 where the trainer is compiled with steps_per_execution > 1: "
                "steps inside cannot be seen. Compile it without."
            )
