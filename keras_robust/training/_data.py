"""What can be said of training data before training starts."""

import tensorflow as tf

from keras_robust._checks import check_images, check_labels, check_logits, check_same_length
from keras_robust.attacks._attack import call_logits


def check_data(model, bounds, x, y, argument: str = "x"):
    """Raises unless the data fits the model and the attack's bounds.

    Arrays are looked at whole, a `tf.data.Dataset` by its structure and first batch; what
    else Keras takes (generators, sequences) is left to Keras, since looking would consume it.

    Returns:
        What was looked at, `(x, y)`: the arrays or the first batch; None where nothing was.
    """
    if isinstance(x, tf.data.Dataset):
        if y is not None:
            raise ValueError(f"`y` must be None when `{argument}` is a dataset of batches.")
        x, y = _first_batch(x, argument)
    if x is None or y is None or not hasattr(x, "shape") or not hasattr(y, "shape"):
        return None
    x = check_images(x, bounds, argument)
    check_same_length(x, tf.convert_to_tensor(y))
    classes = check_logits(call_logits(model, x[:2]))
    check_labels(y, classes)
    return x, tf.convert_to_tensor(y)


def batch_rows(x, looked_at, batch_size=None, **_) -> int | None:
    """Size of the batches that `fit` makes of `x`, None where nothing was looked at.

    Args:
        x: what `fit` got.
        looked_at: what `check_data` returned.
        batch_size: as given to `fit`.
    """
    if looked_at is None:
        return None
    rows = int(looked_at[0].shape[0])
    # 32 is Keras's default for arrays.
    return rows if isinstance(x, tf.data.Dataset) else min(rows, batch_size or 32)


def _first_batch(dataset, argument):
    if not isinstance(dataset.element_spec, tuple) or len(dataset.element_spec) not in (2, 3):
        raise ValueError(
            f"`{argument}` must be a dataset of (x, y) or (x, y, sample_weight) batches, got "
            f"elements {dataset.element_spec}."
        )
    shape = dataset.element_spec[1].shape
    if shape.rank == 0:
        raise ValueError(
            f"`{argument}` is a dataset of single examples. Batch it: dataset.batch(128)."
        )
    for batch in dataset.take(1):
        return batch[:2]
    raise ValueError(
        f"`{argument}` is an empty dataset. Does a filter or drop_remainder leave nothing?"
    )
