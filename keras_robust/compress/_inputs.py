"""What `Recipe.run` is given, looked at before any training starts."""

import tensorflow as tf

from keras_robust._checks import check_images, check_labels, check_logits
from keras_robust._keras import keras


def check_epochs(epochs, stages: int) -> list[int]:
    """The epochs of each stage.

    Raises:
        TypeError: not a whole number nor a sequence of them.
        ValueError: fewer than one, or another number of them than of stages.
    """
    each = [epochs] * stages if isinstance(epochs, int) else epochs
    if (
        isinstance(epochs, (bool, str))
        or not isinstance(each, (list, tuple))
        or not all(isinstance(number, int) and not isinstance(number, bool) for number in each)
    ):
        raise TypeError(f"`epochs` must be a whole number, or one for each stage, got {epochs!r}.")
    if len(each) != stages:
        raise ValueError(
            f"`epochs` has {len(each)} entries, but the recipe has {stages} stages. Give one "
            "number for all, or one for each."
        )
    if min(each) < 1:
        raise ValueError(f"`epochs` must be at least 1, got {epochs!r}.")
    return list(each)


def check_dataset(dataset, model, argument: str):
    """The number of batches, and one batch `(x, y)`, of a dataset that fits `model`.

    Raises:
        TypeError: not a tf.data.Dataset.
        ValueError: not (x, y) or (x, y, sample_weight), not batched, empty, infinite, another
            shape than the model's input, labels the model has no logit for, or a model that
            does not return logits.
    """
    if not isinstance(dataset, tf.data.Dataset):
        raise TypeError(
            f"`{argument}` must be a tf.data.Dataset of (x, y) batches, got "
            f"{type(dataset).__name__}. From arrays: "
            "tf.data.Dataset.from_tensor_slices((x, y)).batch(128)."
        )
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise ValueError(
            f"`{argument}` must give (x, y) or (x, y, sample_weight), got elements {spec}."
        )
    _check_shape(spec[0], model, argument)
    steps = _length(dataset, argument)
    first = next(iter(dataset.take(1)), None)
    if first is None:
        raise ValueError(f"`{argument}` is empty. Give it at least one batch.")
    if steps == tf.data.UNKNOWN_CARDINALITY:
        steps = int(dataset.reduce(0, lambda count, *_: count + 1))
    x = check_images(first[0], argument=f"{argument} images")
    classes = check_logits(model(x[:2], training=False))
    check_labels(first[1], classes, argument=f"{argument} labels")
    return steps, first


def check_fits(dataset, first, model, argument: str) -> None:
    """Raises `ValueError` where `dataset` never ends, or its `first` batch does not fit `model`.

    Of a model without a graph nothing is known before it is called.
    """
    _length(dataset, argument)
    if not getattr(model, "inputs", None):
        return
    if len(model.inputs) == 1 and isinstance(dataset.element_spec[0], tf.TensorSpec):
        _check_shape(dataset.element_spec[0], model, argument)
    some = tf.nest.map_structure(lambda part: part[:2], first[0])
    check_labels(first[1], check_logits(model(some, training=False)), f"{argument} labels")


def _length(dataset, argument: str) -> int:
    """The number of batches, negative where nobody knows it."""
    steps = int(dataset.cardinality())
    if steps == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            f"`{argument}` never ends, so the schedules cannot be laid out. Bound it, for "
            f"instance {argument}.take(1000)."
        )
    return steps


def check_one_input(shape, model, argument: str = "x") -> None:
    """Raises `ValueError` unless `model` has one input, which takes batches of such a `shape`."""
    if len(model.inputs) != 1:
        raise ValueError(f"`model` must have one input, got {len(model.inputs)}.")
    expected, shape = tf.TensorShape(model.inputs[0].shape), tf.TensorShape(shape)
    if shape.rank is not None and not expected[1:].is_compatible_with(shape[1:]):
        raise ValueError(
            f"`{argument}` has inputs of shape {tuple(shape[1:])}, but the model takes "
            f"{tuple(expected[1:])}."
        )


def _check_shape(spec, model, argument: str) -> None:
    expected = tf.TensorShape(model.inputs[0].shape)
    shape = spec.shape
    if shape.rank is None:
        return
    if shape.rank == expected.rank - 1 and expected[1:].is_compatible_with(shape):
        raise ValueError(
            f"`{argument}` is not batched: it gives single inputs of shape {tuple(shape)}. "
            f"Write {argument}.batch(128)."
        )
    if shape.rank != expected.rank or not expected.is_compatible_with(shape):
        raise ValueError(
            f"`{argument}` gives inputs of shape {tuple(shape)}, but the model takes "
            f"{tuple(expected)}."
        )


def loss_for(y):
    """The default loss, from logits: sparse for integer labels, dense for label vectors."""
    if y.shape.rank == 2 and y.shape[-1] != 1:
        return keras.losses.CategoricalCrossentropy(from_logits=True)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
