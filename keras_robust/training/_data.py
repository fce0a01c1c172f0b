"""What can be said of training data before training starts."""

import tensorflow as tf

from keras_robust._checks import check_images, check_labels, check_logits, check_same_length
from keras_robust.attacks._attack import call_logits


def split_labels(y):
    """`(labels, teachers' logits)` of what a batch holds as y; None where there are no logits."""
    if not isinstance(y, dict):
        return y, None
    if set(y) != {"labels", "logits"}:
        raise TypeError(
            f"`y` must be labels in one array, got a dict of {', '.join(map(repr, y))}. A dataset "
            "of dicts: dataset.map(lambda x, y: (x, y['name']))."
        )
    return y["labels"], y["logits"]


def check_data(model, bounds, x, y, argument: str = "x", stored: bool | None = None):
    """Raises unless the data fits the model and the attack's bounds.

    Arrays are looked at whole, a `tf.data.Dataset` by its structure and first batch; what
    else Keras takes (generators, sequences) is left to Keras, since looking would consume it.

    Returns:
        What was looked at, `(x, y)`: the arrays or the first batch; None where nothing was.
    """
    if x is None:
        raise ValueError(
            f"`{argument}` must be arrays or a tf.data.Dataset of (x, y) batches, got None. Give "
            "images and labels, fit(x, y), or fit(dataset)."
        )
    if isinstance(x, tf.data.Dataset):
        if y is not None:
            raise ValueError(f"`y` must be None when `{argument}` is a dataset of batches.")
        x, y = _first_batch(x, argument)
    y, logits = split_labels(y)
    if stored is not None:
        _check_stored(stored, logits, argument)
    if x is None or y is None or not hasattr(x, "shape") or not hasattr(y, "shape"):
        return None
    x = check_images(x, bounds, argument)
    check_same_length(x, tf.convert_to_tensor(y))
    classes = check_logits(call_logits(model, x[:2]))
    check_labels(y, classes, shares=False)
    if logits is not None and (len(logits.shape) != 3 or logits.shape[-1] != classes):
        raise ValueError(
            f"`{argument}` must hold teachers' logits (batch, teachers, {classes}), got "
            f"{tuple(logits.shape)}."
        )
    return x, tf.convert_to_tensor(y)


def _check_stored(stored, logits, argument):
    if stored and logits is None:
        raise ValueError(
            f"`{argument}` must hold the teachers' logits for teachers='stored'. Make it with "
            "kr.training.with_logits(x, y, kr.training.teacher_logits(teachers, x))."
        )
    if not stored and logits is not None:
        raise ValueError(
            f"`{argument}` holds teachers' logits, which this trainer does not use. Give it to "
            "kr.Distillation(student, teachers='stored')."
        )


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
    labels, _ = split_labels(dataset.element_spec[1])
    if not hasattr(labels, "shape"):
        raise TypeError(f"`y` must be labels in one tensor, got batches with {labels}.")
    # A single one-hot label has an axis too: that of the classes, beside the rows of its image.
    images = getattr(dataset.element_spec[0], "shape", labels.shape)
    if labels.shape.rank == 0 or not images[:1].is_compatible_with(labels.shape[:1]):
        raise ValueError(
            f"`{argument}` is a dataset of single examples, got elements of shape {images} and "
            f"{labels.shape}. Batch it: dataset.batch(128)."
        )
    for batch in dataset.take(1):
        return batch[:2]
    raise ValueError(
        f"`{argument}` is an empty dataset. Does a filter or drop_remainder leave nothing?"
    )


def shuffles_unseeded(dataset) -> bool:
    """Whether some shuffle in `dataset` draws another order in each process."""
    if not isinstance(dataset, tf.data.Dataset):
        return False
    # TensorFlow shows neither in its public interface; a dataset without them is taken as it is.
    seeds = [getattr(dataset, name, 1) for name in ("_seed", "_seed2")]
    if not any(map(int, seeds)):
        return True
    return any(shuffles_unseeded(each) for each in dataset._inputs())
