"""A network cut after a layer, with a small new head."""

import numbers
import typing

import numpy as np

from keras_robust._keras import keras
from keras_robust.analysis._activations import cut_after
from keras_robust.layers import strip_virtual


class Parameters(typing.NamedTuple):
    """How many numbers a model holds.

    Attributes:
        total: all of them.
        trainable: those that `fit` changes by gradients.
        frozen: the others, moving statistics among them.
    """

    total: int
    trainable: int
    frozen: int


def parameters(model) -> Parameters:
    """Counts the parameters of a Keras model.

    >>> parameters(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]))
    Parameters(total=15, trainable=15, frozen=0)
    """
    count = {
        kind: sum(int(np.prod(tuple(weight.shape))) for weight in getattr(model, kind))
        for kind in ("trainable_weights", "non_trainable_weights")
    }
    trainable, frozen = count.values()
    return Parameters(trainable + frozen, trainable, frozen)


def replace_head(model, layer, classes: int, hidden=None, *, freeze: bool = True, seed: int = 0):
    """A new model: `model` up to `layer`, then a new linear head.

    Where a representation is of low rank, a linear head on it is enough, and all that came after
    it can go: Sanyal et al. 2018, https://arxiv.org/abs/1804.07090, put 160 thousand parameters
    in the place of 8 million for less than a point of accuracy. `model` itself stays as it is;
    the new one has copies of its weights, and no virtual layers, which belong to its training.

    With `freeze` the body's layers are not trainable. In Keras that also puts their
    BatchNormalization in inference mode: its statistics stay those of the first training,
    unlike where only gradients are stopped (Utrera et al. 2021,
    https://arxiv.org/abs/2007.05869).

    Args:
        model: functional or built sequential Keras model.
        layer: name of the layer, or the layer, whose output, flattened, the head takes.
        classes: logits, >= 2.
        hidden: units of a ReLU layer before the logits, or a sequence of such numbers; None for
            none.
        freeze: whether only the head is trained.
        seed: of the head's initial weights.

    Returns:
        A functional Keras model that returns logits `(batch, classes)`, not compiled.
        `parameters` counts what it holds.

    Raises:
        TypeError, ValueError: wrong inputs, or no such layer.

    >>> layers = [keras.layers.Dense(6, "relu", name="body"), keras.layers.Dense(3)]
    >>> model = keras.Sequential([keras.Input((4,)), *layers])
    >>> new = replace_head(model, "body", classes=2)
    >>> new.output_shape, parameters(new)
    ((None, 2), Parameters(total=44, trainable=14, frozen=30))
    """
    _check_count(classes, "classes", 2)
    hidden = () if hidden is None else hidden if isinstance(hidden, (list, tuple)) else (hidden,)
    for units in hidden:
        _check_count(units, "hidden", 1)
    body = strip_virtual(cut_after(model, layer))
    # Layer by layer: a model that others are made of forgets it.
    for own in body.layers:
        own.trainable = not freeze
    x = body.output
    if len(x.shape) > 2:
        x = keras.layers.Flatten(name=_free(body, "head_flatten"))(x)
    if None in tuple(x.shape[1:]):
        raise ValueError(
            f"The output of `layer` has the open shape {tuple(body.output.shape)}, but a linear "
            "head has a fixed number of weights. Build the model with a fixed input shape."
        )
    for index, units in enumerate([*hidden, classes]):
        last = index == len(hidden)
        x = keras.layers.Dense(
            int(units),
            None if last else "relu",
            kernel_initializer=keras.initializers.GlorotUniform(seed=seed + index),
            name=_free(body, "head_logits" if last else f"head_hidden_{index + 1}"),
        )(x)
    return keras.Model(body.inputs, x, name=f"{model.name}_new_head")


def _free(body, name: str) -> str:
    """`name`, numbered where a layer of the body has it."""
    taken, free, number = {own.name for own in body.layers}, name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def _check_count(value, argument: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"`{argument}` must be a whole number >= {least}, got {value!r}.")
