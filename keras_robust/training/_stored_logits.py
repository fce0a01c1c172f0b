"""Teachers' logits computed once, kept on disk, and handed to the student with the labels."""

import pathlib

import numpy as np
import tensorflow as tf

from keras_robust._checks import (
    check_images,
    check_logit_model,
    check_logits,
    check_same_length,
)
from keras_robust._files import beside
from keras_robust.attacks._attack import call_logits

# So many images, spread over all, show whether a file belongs to these teachers and images.
_LOOKED_AT = 64
_SAME = 1e-3


def teacher_logits(teachers, x, path=None, *, batch_size: int = 256) -> np.ndarray:
    """The logits of each teacher for each image, computed once.

    A teacher in `kr.Distillation` is asked in every epoch anew; where the images of an epoch
    stay the same (no augmentation) its answers do too.

    Args:
        teachers: model or list of models, or callables of TensorFlow operations, that return
            logits `(batch, classes)`; called in inference mode.
        x: images, array `(n, ...)`, as the teachers take them.
        path: `.npy` file. One that is there is used, memory-mapped, if it holds these teachers'
            logits of these images: 64 of them are computed to see it.
        batch_size: images at once.

    Returns:
        `(n, teachers, classes)` float32.

    Raises:
        ValueError: no teacher or no image, a teacher that gives probabilities, NaN or infinite
            logits, teachers of unequal classes, a `path` that does not end in ".npy", or a file
            there that holds something else.

    >>> teacher = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> teacher_logits(teacher, np.zeros((10, 4), "float32")).shape
    (10, 1, 3)
    """
    teachers = list(teachers) if isinstance(teachers, (list, tuple)) else [teachers]
    if not teachers:
        raise ValueError("`teachers` is empty. Give at least one.")
    for index, teacher in enumerate(teachers):
        check_logit_model(teacher, f"teachers[{index}]")
    x = np.asarray(x)
    if not len(x):
        raise ValueError(f"`x` is empty, got shape {x.shape}. Give at least one image.")
    _check_batch_size(batch_size)
    if path is None:
        return _ask(teachers, x, batch_size)
    path = pathlib.Path(path)
    if path.suffix != ".npy":
        raise ValueError(f"`path` must end in '.npy', got {str(path)!r}.")
    if path.exists():
        return _kept(path, teachers, x)
    logits = _ask(teachers, x, batch_size)
    with beside(path) as temporary:
        np.save(temporary, logits)
    return np.load(path, mmap_mode="r")


def with_logits(x, y, logits, batch_size: int = 128, *, seed: int | None = 0) -> tf.data.Dataset:
    """What `kr.Distillation(student, "stored")` is fitted on: images, labels and logits.

    Args:
        x: images, array `(n, ...)`; uint8 ones are divided by 255.
        y: labels, `(n,)` int.
        logits: what `teacher_logits` returned for `x`, `(n, teachers, classes)`.
        batch_size: images a batch; what is left over at the end of an epoch is dropped, and
            other images are in the next.
        seed: of the order, another one in each epoch; None keeps that of `x`, all of it.

    Returns:
        Batches `(x, {"labels": y, "logits": logits})`.

    Raises:
        ValueError: arrays of unequal lengths, logits of another shape or not finite, or fewer
            images than a batch.
    """
    x, y = np.asarray(x), np.asarray(y)
    check_same_length(x, y)
    _check_batch_size(batch_size)
    logits = logits if hasattr(logits, "ndim") else np.asarray(logits)
    if logits.ndim != 3 or len(logits) != len(x):
        raise ValueError(
            f"`logits` must have the shape ({len(x)}, teachers, classes), got {logits.shape}. Make "
            "them with kr.training.teacher_logits(teachers, x)."
        )
    if not np.isfinite(logits).all():
        raise ValueError("`logits` holds values that are NaN or infinite. Look at the teachers.")
    if seed is not None and len(x) < batch_size:
        raise ValueError(
            f"`batch_size`={batch_size} is more than the {len(x)} images, and what is left over is "
            f"dropped: there would be no batch. Give at most {len(x)}, or seed=None."
        )
    order = tf.data.Dataset.range(len(x))
    if seed is not None:
        order = order.shuffle(len(x), seed=seed, reshuffle_each_iteration=True)
    order = order.batch(batch_size, drop_remainder=seed is not None)
    with tf.device("CPU"):
        images, labels, kept = tf.constant(x), tf.constant(y, tf.int32), tf.constant(logits)

    def fetch(index):
        image = tf.cast(tf.gather(images, index), tf.float32)
        image = image / 255.0 if images.dtype == tf.uint8 else image
        return image, {"labels": tf.gather(labels, index), "logits": tf.gather(kept, index)}

    return order.map(fetch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _check_batch_size(batch_size) -> None:
    whole = isinstance(batch_size, int) and not isinstance(batch_size, bool)
    if not whole or batch_size < 1:
        raise ValueError(f"`batch_size` must be a whole number >= 1, got {batch_size!r}.")


def _ask(teachers, x, batch_size) -> np.ndarray:
    runs = [tf.function(lambda part, t=t: call_logits(t, part), autograph=False) for t in teachers]
    answers = [
        [run(_images(x[start : start + batch_size])).numpy() for start in _starts(x, batch_size)]
        for run in runs
    ]
    each = [np.concatenate(parts).astype(np.float32) for parts in answers]
    for index, answer in enumerate(each):
        # What a SavedModel or a subclassed model ends in shows in its values alone.
        check_logits(tf.constant(answer), f"teachers[{index}]")
    if len({answer.shape for answer in each}) > 1:
        raise ValueError(
            "`teachers` must know the same classes, got logits of the shapes "
            f"{[answer.shape for answer in each]}."
        )
    return np.stack(each, axis=1)


def _kept(path, teachers, x) -> np.ndarray:
    try:
        logits = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"`path` {str(path)!r} is no .npy file: {error}. Delete it.") from error
    some = np.unique(np.linspace(0, len(x) - 1, _LOOKED_AT).astype(int))
    fresh = _ask(teachers, x[some], _LOOKED_AT)
    wanted = (len(x), *fresh.shape[1:])
    if logits.shape != wanted or logits.dtype != np.float32:
        raise ValueError(
            f"`path` {str(path)!r} holds {logits.dtype} {logits.shape}, these teachers and images "
            f"make float32 {wanted}. Delete it, or give another path."
        )
    far = np.max(np.abs(logits[some] - fresh))
    if not far <= _SAME * max(1.0, np.max(np.abs(fresh))):
        raise ValueError(
            f"`path` {str(path)!r} holds logits of other teachers or other images: some differ by "
            f"{far:.3g}. Delete it, or give another path."
        )
    return logits


def _starts(x, batch_size):
    return range(0, len(x), batch_size)


def _images(x):
    return check_images(np.float32(x) / 255 if x.dtype == np.uint8 else x)
