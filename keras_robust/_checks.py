"""Checks of what a user hands in: each error names the argument, the value and the fix."""

import collections.abc
import math
import os

import numpy as np
import tensorflow as tf

from keras_robust._keras import check_model, is_model, keras

# How far from 1 a row of probabilities may sum, and one of soft labels, which are rounded at will:
# no labels, or several, are off by 1.
_SUM, _SHARES = 1e-3, 0.05
# The fewest rows of a batch that are judged while a graph runs.
_ROWS = 8


def check_images(x, bounds=None, argument: str = "x") -> tf.Tensor:
    """A batch of inputs as float32 `(batch, ...)`; values are looked at when eager.

    Raises:
        TypeError: no array, or not floating point.
        ValueError: no feature axis, an empty batch, NaN or infinite values, or values
            outside `bounds`.
    """
    x = as_tensor(x, argument, "an array (batch, ...) of floating-point inputs")
    if not x.dtype.is_floating:
        raise TypeError(
            f"`{argument}` must be floating point, got dtype {x.dtype.name}. Give images as the "
            "model takes them: astype('float32') / 255 where it takes [0, 1], astype('float32') "
            "alone where it scales them itself, as with a Rescaling layer."
        )
    if x.shape.rank is not None and x.shape.rank < 2:
        raise ValueError(
            f"`{argument}` must have a batch axis and at least one feature axis, got shape "
            f"{tuple(x.shape)}. Add the batch axis with {argument}[None]."
        )
    x = tf.cast(x, tf.float32)
    if tf.executing_eagerly():
        _check_values(x.numpy(), bounds, argument)
    return x


def as_tensor(value, argument: str, wanted: str) -> tf.Tensor:
    """`value` as a tensor; raises `TypeError` where it is none, with what is `wanted` instead."""
    found, fix, reason = "None" if value is None else type(value).__name__, "", None
    if isinstance(value, tf.data.Dataset):
        found = "a tf.data.Dataset"
        fix = " Put its batches together: x, y = map(np.concatenate, zip(*ds.as_numpy_iterator()))."
    elif isinstance(value, (str, bytes, os.PathLike)):
        found, fix = repr(value), " Load what it names first, for instance with np.load."
    elif callable(value) or isinstance(value, collections.abc.Iterator):
        found = "a function" if callable(value) else "a generator"
        fix = " Put what it gives together, with np.stack or np.concatenate."
    elif value is not None:
        try:
            return tf.convert_to_tensor(value)
        except (TypeError, ValueError) as error:
            reason = error
            fix = f" It cannot become one: {str(error).strip()[:200]}"
    raise TypeError(f"`{argument}` must be {wanted}, got {found}.{fix}") from reason


def check_channels_last(x, argument: str = "x") -> None:
    """Raises `ValueError` for a batch that can only be images with their channels first.

    One row of many columns and channels is an input too, so that grey images must be square.
    """
    if x.shape.rank != 4 or None in x.shape[1:]:
        return
    first, rows, columns = x.shape[1:]
    square = rows == columns
    if min(rows, columns) > 4 and (first == 3 or (first == 1 and square)):
        raise ValueError(
            f"`{argument}` has shape {tuple(x.shape)}, which looks channels first. Move the "
            "channels last: numpy.moveaxis(x, 1, -1). A model that takes them first goes into "
            "lambda x: model(tf.transpose(x, [0, 3, 1, 2]))."
        )


def assert_rows(x) -> tf.Tensor:
    """`x`, refused while the graph runs where a replica got no row of the global batch."""
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return x
    message = (
        "A replica got no row: the last batch has fewer rows than there are replicas. Leave it "
        "out with batch(size, drop_remainder=True)."
    )
    with tf.control_dependencies([tf.debugging.assert_positive(tf.shape(x)[0], message)]):
        return tf.identity(x)


def assert_in_bounds(x, bounds) -> None:
    """Raises while a graph runs when `x` leaves `bounds`; XLA leaves such checks out."""
    low, high = tf.reduce_min(x), tf.reduce_max(x)
    tf.debugging.Assert(
        (low >= bounds[0] - 1e-6) & (high <= bounds[1] + 1e-6),
        [f"`x` has values outside bounds={tuple(bounds)}, smallest and largest:", low, high],
    )


def assert_logits(logits, argument: str) -> None:
    """Raises while a graph runs when all `logits` are probabilities; XLA leaves such checks out.

    Of a few rows logits may look so by chance.
    """
    sums = tf.reduce_sum(logits, axis=-1)
    likely = tf.reduce_all(logits >= 0) & tf.reduce_all(tf.abs(sums - 1.0) <= _SUM)
    message = _probabilities(argument, "returned probabilities")
    tf.debugging.Assert(~likely | (tf.shape(logits)[0] < _ROWS), [message])


def _check_values(x: np.ndarray, bounds, argument: str) -> None:
    if x.size == 0:
        raise ValueError(f"`{argument}` is empty, got shape {x.shape}. Give at least one input.")
    low, high = float(x.min()), float(x.max())
    if not math.isfinite(low + high):
        bad = int(x.size - np.isfinite(x).sum())
        raise ValueError(
            f"`{argument}` holds {bad} values that are NaN or infinite. Remove or repair them."
        )
    if bounds is not None and (low < bounds[0] - 1e-6 or high > bounds[1] + 1e-6):
        raise ValueError(
            f"`{argument}` has values in [{low:g}, {high:g}], outside bounds={tuple(bounds)}. "
            "Scale the inputs, or give the attack the `bounds` that hold for them."
        )


def check_labels(
    y, classes: int | None = None, argument: str = "y", *, shares: bool = True
) -> tf.Tensor:
    """Labels as int32 `(batch,)`, or float32 `(batch, classes)` when they are soft.

    Integer labels may come as `(batch,)` or `(batch, 1)`, in any integer or float dtype, and,
    when eager, one-hot: inside a graph one-hot labels cannot be told from soft ones. Without
    `shares` label vectors need not be the classes' shares: a loss of one's own reads them.

    Raises:
        TypeError: no array, or not of numbers.
        ValueError: wrong rank, label vectors of another length than `classes`, and, when eager,
            fractional or NaN labels, labels outside `[0, classes)`, or label vectors with NaN,
            with numbers below 0 or that do not sum to 1 where they are `shares`.
    """
    y = as_tensor(y, argument, "an array (batch,) of class numbers")
    if not (y.dtype.is_integer or y.dtype.is_floating):
        raise TypeError(
            f"`{argument}` must hold class numbers, got dtype {y.dtype.name}. Number the classes "
            "from 0."
        )
    rank = y.shape.rank
    if rank == 2 and y.shape[-1] == 1:
        y, rank = tf.squeeze(y, axis=-1), 1
    if rank not in (1, 2):
        raise ValueError(
            f"`{argument}` must be integer labels of shape (batch,) or label vectors of shape "
            f"(batch, classes), got shape {tuple(y.shape)}."
        )
    if rank == 2:
        if classes is not None and y.shape[-1] not in (None, classes):
            raise ValueError(
                f"`{argument}` has {y.shape[-1]} columns, but the model gives {classes} classes."
            )
        return _as_integers(tf.cast(y, tf.float32), argument, shares)
    if tf.executing_eagerly() and y.shape[0]:
        _check_label_values(y.numpy(), classes, argument)
    return tf.cast(y, tf.int32)


def _as_integers(vectors, argument: str, shares: bool) -> tf.Tensor:
    """Class numbers when eager `vectors` are all one-hot, else the vectors."""
    if not tf.executing_eagerly():
        return vectors
    values = vectors.numpy()
    if is_one_hot(values):
        return tf.argmax(vectors, axis=-1, output_type=tf.int32)
    # Written so that NaN is caught too.
    good, wanted = np.all(np.isfinite(values), axis=-1), "finite numbers"
    if shares:
        good &= np.all(values >= 0, axis=-1) & (np.abs(values.sum(-1) - 1) <= _SHARES)
        wanted = "numbers >= 0 that sum to 1"
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(
            f"`{argument}` must hold label vectors of {wanted}, got "
            f"{values[row, :10].tolist()} in row {row}. Give one-hot or soft labels, or class "
            "numbers (batch,)."
        )
    return vectors


def is_one_hot(values: np.ndarray) -> bool:
    """Whether each row of `(batch, classes)` holds a single 1 and zeros."""
    return bool(np.all((values == 0) | (values == 1)) and np.all(values.sum(-1) == 1))


def _check_label_values(y: np.ndarray, classes: int | None, argument: str) -> None:
    if not np.all(np.isfinite(y)) or np.any(y != np.floor(y)):
        raise ValueError(
            f"`{argument}` must hold whole class numbers, got for instance "
            f"{y[~(np.isfinite(y) & (y == np.floor(y)))][0]!r}."
        )
    if y.min() < 0 or (classes is not None and y.max() >= classes):
        limit = "classes" if classes is None else classes
        raise ValueError(
            f"`{argument}` must be in [0, {limit}), got labels in [{y.min()}, {y.max()}]. "
            "Number the classes from 0, and give the model one logit a class."
        )


def check_same_length(x, y) -> None:
    """Raises `ValueError` unless `x` and `y` have as many rows."""
    if x.shape[0] is not None and y.shape[0] is not None and x.shape[0] != y.shape[0]:
        raise ValueError(
            f"`x` and `y` must have the same length, got {x.shape[0]} and {y.shape[0]}."
        )


def check_logit_model(model, argument: str = "model", scores: bool = True) -> None:
    """Raises unless `model` is a callable of this Keras whose last step is not a softmax.

    Without `scores`, where only the largest output is read, it may be one.

    What a subclassed model or a bare callable ends in cannot be read off it;
    `check_logits` looks at the values then.
    """
    check_model(model, argument)
    if not callable(model):
        raise TypeError(
            f"`{argument}` must be a Keras model or a callable (batch, ...) -> (batch, classes), "
            f"got {type(model).__name__}."
        )
    if scores and is_model(model) and _ends_in_probabilities(model):
        raise ValueError(_probabilities(argument, "ends in a softmax or sigmoid"))


def check_logits(logits, argument: str = "model", scores: bool = True) -> int:
    """The number of classes; raises `ValueError` unless `logits` are `(batch, classes)`.

    When eager, values that are probabilities are refused too: all in [0, 1] with rows
    that sum to one; not without `scores`, where only the largest is read.
    """
    if logits.shape.rank != 2 or (logits.shape[-1] or 0) < 2:
        raise ValueError(
            f"`{argument}` must map (batch, ...) to logits (batch, classes) with at least 2 "
            f"classes, got shape {tuple(logits.shape)}. Give a binary classifier two logits."
        )
    if tf.executing_eagerly():
        values = np.asarray(tf.cast(logits, tf.float32))
        if not np.all(np.isfinite(values)):
            raise ValueError(f"`{argument}` returned NaN or infinite logits for the given inputs.")
        if scores and values.min() >= 0 and np.allclose(values.sum(-1), 1.0, atol=_SUM):
            raise ValueError(_probabilities(argument, "returned probabilities"))
    return int(logits.shape[-1])


def _probabilities(argument: str, what: str) -> str:
    return (
        f"`{argument}` {what}, but logits are needed: saturated probabilities hide the gradient "
        "from an attack. Drop the last activation (Dense(classes) without activation) and "
        "compile with a loss that says from_logits=True."
    )


def _ends_in_probabilities(layer) -> bool:
    if isinstance(layer, keras.layers.Softmax):
        return True
    if isinstance(layer, keras.Model):
        last = _last_layer(layer)
        return last is not None and _ends_in_probabilities(last)
    # TF-MOT's wrappers hold the wrapped layer, and its activation wrapper the activation.
    inner = getattr(layer, "layer", None)
    if isinstance(inner, keras.layers.Layer):
        return _ends_in_probabilities(inner)
    activation = getattr(layer, "activation", None)
    activation = getattr(activation, "activation", activation)
    return getattr(activation, "__name__", None) in ("softmax", "sigmoid")


def _last_layer(model):
    """The layer that makes the first output, None for a subclassed model."""
    outputs = getattr(model, "outputs", None)
    if outputs:
        return outputs[0]._keras_history[0]
    layers = model.layers if isinstance(model, keras.Sequential) else []
    return layers[-1] if layers else None
