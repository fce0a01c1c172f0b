"""An average of the weights over training, evaluated beside the weights themselves."""

import contextlib
import numbers

import tensorflow as tf

from keras_robust._batch_norm import check_batch_norm, measure_batch_norm
from keras_robust.training._remembering import Remembering


class WeightAverage(Remembering):
    """Averages the weights during `fit`, and logs the validation of both.

    An exponential moving average (Gowal et al. 2020, https://arxiv.org/abs/2010.03593), or with
    `decay=None` the mean of the weights at the end of each epoch (stochastic weight averaging,
    Izmailov et al. 2018, https://arxiv.org/abs/1803.05407). Training itself is untouched: the
    model holds its own weights, but inside `with average.applied():`, and after
    `average.keep()`. BatchNorm's statistics are averaged like weights, or measured anew on
    `batch_norm`. With `fit(resume=...)` the average is part of the state.

    Args:
        validation_data: what `evaluate` takes, `(x, y)` or a dataset; its logs for the average
            are "val_average_accuracy" and the like. None logs nothing.
        decay: of the moving average for each step, in [0, 1), lower at first:
            `min(decay, (1 + n) / (10 + n))` at the n-th. None: equal weights for each epoch.
            With `compile(steps_per_execution=k)` it moves once in k steps.
        start: number of the first epoch that counts; until then the average is the weights
            themselves.
        batch_norm: `tf.data.Dataset` of inputs, or of `(inputs, ...)`, on which the statistics
            of the averaged model are measured; adversarial ones where it was trained on such.

    Raises:
        ValueError: a setting out of its range; in `fit`, another model than before.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> trainer = kr.AdversarialTraining(model, kr.attacks.FGSM(eps=0.1))
    >>> trainer.compile("sgd")
    >>> x, y = np.random.default_rng(0).uniform(size=(8, 4)).astype("float32"), np.arange(8) % 3
    >>> average = kr.training.WeightAverage((x, y), decay=0.99)
    >>> history = trainer.fit(x, y, callbacks=[average], verbose=0)
    >>> sorted(history.history)
    ['loss', 'robust_accuracy', 'val_average_loss', 'val_average_robust_accuracy']
    >>> with average.applied():
    ...     logits = model(x)
    """

    def __init__(self, validation_data=None, *, decay=0.999, start=0, batch_norm=None):
        super().__init__()
        if decay is not None and not (isinstance(decay, numbers.Real) and 0 <= decay < 1):
            raise ValueError(
                "`decay` must be a number in [0, 1) such as 0.999, or None for the mean, got "
                f"{decay!r}."
            )
        if not isinstance(start, int) or start < 0:
            raise ValueError(f"`start` must be an epoch's number >= 0, got start={start!r}.")
        check_batch_norm(batch_norm)
        self.validation_data, self.decay, self.start = validation_data, decay, start
        self.batch_norm = batch_norm
        self._counts = False

    def create_variables(self, trainer, model):
        self._trained = model
        self._raw = [v for v in model.variables if tf.as_dtype(v.dtype).is_floating]
        self._count = tf.Variable(0, trainable=False, dtype=tf.int64)
        self._average = [tf.Variable(tf.convert_to_tensor(v), trainable=False) for v in self._raw]
        self._update = tf.function(self._add, autograph=False)
        return [self._count, *self._average]

    def on_epoch_begin(self, epoch, logs=None):
        self._counts = epoch >= self.start

    def on_train_batch_end(self, batch, logs=None):
        if self._counts and self.decay is not None:
            self._update()

    def on_epoch_end(self, epoch, logs=None):
        if self._counts and self.decay is None:
            self._update()
        if self.validation_data is None or logs is None:
            return
        data = self.validation_data
        data = data if isinstance(data, (tuple, list)) else (data,)
        with self.applied():
            found = self.model.evaluate(*data, verbose=0, return_dict=True)
        logs.update({f"val_average_{name}": float(value) for name, value in found.items()})

    @contextlib.contextmanager
    def applied(self):
        """The model holds the average inside, and its own weights again afterwards."""
        variables = self._trained.variables
        kept = [tf.convert_to_tensor(variable) for variable in variables]
        try:
            if self._begun():
                self.keep()
            yield
        finally:
            for variable, value in zip(variables, kept):
                variable.assign(value)

    def keep(self):
        """Puts the average into the model for good.

        Raises:
            ValueError: before `fit`, or before an epoch of it has counted.
        """
        if self.created is None:
            raise ValueError("There is no average yet: give the callback to `fit` first.")
        if not self._begun():
            raise ValueError(
                f"There is no average yet: `fit` ended before epoch start={self.start} had counted."
            )
        for variable, value in zip(self._raw, self._average):
            variable.assign(value)
        if self.batch_norm is not None:
            measure_batch_norm(self._trained, self.batch_norm)

    def _begun(self) -> bool:
        return int(tf.convert_to_tensor(self._count)) > 0

    def _add(self):
        """Moves the average towards the weights; until the first count it is them."""
        count = tf.cast(self._count, tf.float32)
        share = 1.0 / (count + 1.0)
        if self.decay is not None:
            share = tf.maximum(1.0 - self.decay, 9.0 / (10.0 + count))
        share = tf.where(count > 0, share, 1.0)
        for average, variable in zip(self._average, self._raw):
            way = tf.convert_to_tensor(variable) - average
            average.assign_add(tf.cast(share, way.dtype) * way)
        self._count.assign_add(1)
