"""A model that can only be asked: a device file, a served endpoint, any numpy function."""

import collections.abc
import numbers
import os

import numpy as np
import tensorflow as tf


class BlackBox:
    """A numpy function as a model for attacks without gradients.

    Attributes:
        queries: rows asked so far.
        classes: logits that each row gives.

    Args:
        predict: `(batch, ...)` float32 array -> logits `(batch, classes)`, such as
            `kr.export.TFLiteModel(path)` or a request to a server.
        classes: number of logits, at least 2.

    Raises:
        TypeError: `predict` is not callable.
        ValueError: `classes` is not an int >= 2, or, when asked, `predict` returns another shape.

    >>> box = BlackBox(lambda x: x @ np.float32([[1, -1], [-2, 2]]), classes=2)
    >>> x_adv = kr.attacks.Square(eps=0.25, queries=50)(box, np.full((1, 2), 0.5, "float32"), [1])
    >>> x_adv.numpy().tolist(), box.queries
    ([[0.75, 0.25]], 8)
    """

    def __init__(self, predict: collections.abc.Callable, classes: int):
        if not callable(predict):
            raise TypeError(
                "`predict` must be a function of a float32 array (batch, ...) that returns logits "
                f"(batch, classes), got {type(predict).__name__}."
            )
        if not isinstance(classes, numbers.Integral) or classes < 2:
            raise ValueError(f"`classes` must be an int >= 2, got classes={classes!r}.")
        self.classes = int(classes)
        self._counter = _Counter(predict, self.classes)

    @property
    def queries(self) -> int:
        return self._counter.rows

    @property
    def must_run_eagerly(self) -> bool:
        """Whether attacks must call it op by op, which takes longer.

        With one thread for operations, a graph that waits for Python, which waits for a graph of
        its own such as a SavedModel's, would wait for ever.
        """
        return _threads_for_operations() == 1

    def __call__(self, x) -> tf.Tensor:
        x = tf.cast(x, tf.float32)
        # Not a method of `self`: a compiled attack keeps what it calls alive, and must not keep
        # the model that it is remembered by.
        logits = tf.numpy_function(self._counter, [x], tf.float32)
        return tf.ensure_shape(logits, [x.shape[0], self.classes])


def _threads_for_operations() -> int:
    """How many operations TensorFlow runs side by side: as asked for, or one a processor."""
    asked = tf.config.threading.get_inter_op_parallelism_threads()
    asked = asked or int(os.environ.get("TF_NUM_INTEROP_THREADS") or 0)
    if asked > 0:
        return asked
    # Those that this process may use, where the system tells.
    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    return len(usable(0))


class _Counter:
    """`predict` with its result checked and its rows counted."""

    def __init__(self, predict, classes):
        self.predict, self.classes, self.rows = predict, classes, 0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if not len(x):  # interpreters refuse empty batches
            return np.zeros((0, self.classes), np.float32)
        logits = np.asarray(self.predict(x), np.float32)
        if logits.shape != (len(x), self.classes):
            raise ValueError(
                f"`predict` must return logits of shape ({len(x)}, {self.classes}) for "
                f"{len(x)} inputs, got shape {logits.shape}."
            )
        self.rows += len(x)
        return logits
