"""The first batch whose loss is not a number, kept for inspection."""

import pathlib
import tempfile

import numpy as np
import tensorflow as tf

from keras_robust._files import beside
from keras_robust._keras import keras
from keras_robust.distribute import worker_index
from keras_robust.training._carried import replica_variable

# Looking makes the device finish its steps first, so it is done now and then only: the batch
# is kept on the device from the step it came up in.
_EVERY = 20
_FIX = (
    "A lower learning rate, an eps_ramp or gradient clipping (the optimizer's clipnorm) usually "
    "helps."
)


class Evidence:
    """Keeps the first batch with a loss that is not finite, on the device.

    Args:
        strategy: the trainer's `tf.distribute` strategy.
        rows: size of the global batch.
        x, y: examples of the batch; their shapes and types but for the first axis count.
    """

    def __init__(self, strategy, rows: int, x, y):
        self.strategy = strategy
        self.rows = self._share(rows)
        with strategy.scope():
            # How many rows are kept; the step's number beside it.
            self.found = replica_variable(tf.zeros([2], tf.int32))
            image = tf.zeros([self.rows, *x.shape[1:]], tf.float32)
            self.x, self.x_adv = replica_variable(image), replica_variable(image)
            self.y = replica_variable(tf.zeros([self.rows, *y.shape[1:]], y.dtype))

    def fits(self, rows: int, x, y) -> bool:
        """Whether global batches of `rows` examples such as `x`, `y` can be kept whole."""
        pairs = ((self.x, x), (self.y, y))
        same = all(tuple(kept.shape[1:]) == tuple(part.shape[1:]) for kept, part in pairs)
        return same and self.y.dtype == y.dtype and self.rows >= self._share(rows)

    def _share(self, rows) -> int:
        return -(-rows // self.strategy.num_replicas_in_sync)

    def look(self, loss, number, x, x_adv, y) -> None:
        """Keeps the batch of step `number` if its loss is the first bad one; in a replica."""

        def keep():
            count = tf.minimum(tf.shape(x)[0], self.rows)
            for variable, value in ((self.x, x), (self.x_adv, x_adv), (self.y, y)):
                value = tf.cast(value, variable.dtype)
                old = tf.convert_to_tensor(variable)
                padded = tf.concat([value, old], axis=0)[: self.rows]
                variable.assign(tf.ensure_shape(padded, variable.shape))
            self.found.assign(tf.stack([count, number]))
            return tf.constant(True)

        first = tf.convert_to_tensor(self.found)[0] == 0
        bad = ~tf.math.is_finite(tf.cast(loss, tf.float32))
        tf.cond(first & bad, keep, lambda: tf.constant(False))

    def collect(self) -> dict | None:
        """`{"step", "x", "x_adv", "y"}` as arrays, or None while every loss was finite."""
        replicas = [
            [part.numpy() for part in self.strategy.experimental_local_results(variable)]
            for variable in (self.found, self.x, self.x_adv, self.y)
        ]
        kept = [part for part in zip(*replicas, strict=True) if part[0][0] > 0]
        if not kept:
            return None
        # What came of one replica's batch makes the losses of all others bad a step later.
        step = min(int(part[0][1]) for part in kept)
        kept = [part for part in kept if part[0][1] == step]
        arrays = {
            name: np.concatenate([part[index][: part[0][0]] for part in kept])
            for index, name in enumerate(("x", "x_adv", "y"), 1)
        }
        return {"step": step, **arrays}

    def forget(self) -> None:
        """Makes ready for another run."""
        for found in self.strategy.experimental_local_results(self.found):
            found.assign(tf.zeros([2], tf.int32))


def evidence_for(known, strategy, rows, examples) -> Evidence | None:
    """`known` where it can keep batches of such `examples`, else another; None without any."""
    if examples is None:
        return None
    if known is not None and known.fits(rows, *examples):
        return known
    return Evidence(strategy, rows, *examples)


class StopAtNaN(keras.callbacks.Callback):
    """Ends training once a loss was not finite, with the batch in a file.

    Args:
        evidence: the trainer's; None where its batches could not be seen before training: then
            there is no file.
        folder: where the file is written; None makes a temporary one.
    """

    def __init__(self, evidence: Evidence | None, folder=None):
        super().__init__()
        self._supports_tf_logs = True
        self.evidence, self.folder = evidence, folder

    def on_train_begin(self, logs=None):
        if self.evidence is not None:
            self.evidence.forget()

    def on_train_batch_end(self, batch, logs=None):
        if batch % _EVERY == _EVERY - 1:
            self._stop(logs)

    def on_epoch_end(self, epoch, logs=None):
        self._stop(logs)

    def _stop(self, logs):
        if self.evidence is None:
            # The mean over the epoch's batches: one that is not finite stays in it.
            if not np.all(np.isfinite((logs or {}).get("loss", 0.0))):
                raise FloatingPointError(f"The loss of training is not finite. {_FIX}")
            return
        batch = self.evidence.collect()
        if batch is None:
            return
        folder = pathlib.Path(self.folder or tempfile.mkdtemp(prefix="keras_robust_"))
        # Each worker has seen its own part of the batch.
        number = worker_index()
        file = folder / (f"nan_batch_{number}.npz" if number else "nan_batch.npz")
        with beside(file) as path:
            np.savez(path, **batch)
        state = folder / "state.npz"
        kept = f" {state} holds the state before." if self.folder and state.exists() else ""
        raise FloatingPointError(
            f"The loss of training step {batch['step']} is not finite. Its batch is in "
            f"{file} (x, x_adv, y).{kept} {_FIX}"
        )
