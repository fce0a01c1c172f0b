"""The activations of one layer, batch by batch, from a model that stays as it is."""

import numbers

import numpy as np
import tensorflow as tf

from keras_robust._checks import check_images
from keras_robust._keras import check_model, is_model, keras


def cut_after(model, layer):
    """The part of `model` from its inputs to `layer`, with the same layers and weights.

    Args:
        model: functional or built sequential Keras model.
        layer: name of one of its layers, or the layer.

    Returns:
        A Keras model that shares its layers with `model`.

    Raises:
        TypeError: not a Keras model of this Keras.
        ValueError: a model without a graph of layers, no layer of that name, or a layer with
            several outputs.
    """
    check_model(model)
    if not is_model(model):
        raise TypeError(f"`model` must be a Keras model, got {type(model).__name__}.")
    if not getattr(model, "inputs", None):
        raise ValueError(
            f"`model` {model.name!r} has no graph of layers: it is subclassed or not built. Build "
            "it with the functional API, or as a Sequential that starts with an Input."
        )
    output = _layer(model, layer).output
    if isinstance(output, (list, tuple, dict)):
        raise ValueError(f"`layer`={_name(layer)!r} has several outputs. Name one that has one.")
    return keras.Model(model.inputs, output, name=f"{model.name}_to_{_name(layer)}")


def reader(model, layer):
    """A function `(x, batch_size)` that yields the activations of `layer`; traced once.

    It yields float32 `(batch, features)` for the rows of `x` in order, each row flattened.
    """
    part = cut_after(model, layer)

    @tf.function(reduce_retracing=True, autograph=False)
    def call(rows):
        return tf.cast(part(rows, training=False), tf.float32)

    def read(x, batch_size: int):
        x = check_images(x).numpy()
        batch_size = min(check_batch_size(batch_size), len(x))
        for start in range(0, len(x), batch_size):
            rows = np.arange(start, start + batch_size) % len(x)  # a constant shape: traced once
            count = min(batch_size, len(x) - start)
            yield call(tf.constant(x[rows])).numpy()[:count].reshape(count, -1)

    return read


def check_batch_size(batch_size) -> int:
    """`batch_size` as an int; raises `ValueError` unless it is a whole number >= 1."""
    whole = isinstance(batch_size, numbers.Integral) and not isinstance(batch_size, bool)
    if not whole or batch_size < 1:
        raise ValueError(f"`batch_size` must be a whole number >= 1, got {batch_size!r}.")
    return int(batch_size)


def _layer(model, layer):
    names = [own.name for own in model.layers]
    if _name(layer) not in names:
        raise ValueError(
            f"`layer`={_name(layer)!r} is no layer of model {model.name!r}. It has "
            f"{', '.join(map(repr, names))}."
        )
    return model.get_layer(_name(layer))


def _name(layer) -> str:
    return layer if isinstance(layer, str) else getattr(layer, "name", repr(layer))
