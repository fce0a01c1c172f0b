"""Kernels that a model of `Quantize` rounds to int8 in each call: stored as these integers."""

import contextlib

import numpy as np
import tensorflow as tf

from keras_robust.compress._tfmot import tfmot

_LAYERS = ("QuantizeLayer", "QuantizeWrapper", "QuantizeWrapperV2")


def is_quantized(model) -> bool:
    """Whether TF-MOT's quantization layers are in `model`."""
    return any(type(layer).__name__ in _LAYERS for layer in model.layers)


@contextlib.contextmanager
def scope(quantized: bool):
    """Lets Keras know TF-MOT's layers for a while, where they are needed."""
    if not quantized:
        yield
        return
    with tfmot().quantization.keras.quantize_scope():
        yield


def codes(model) -> dict[int, tuple[np.ndarray, int]]:
    """By position in `model.weights`: a kernel's int8 codes, and the position of its range.

    A kernel is left out where the codes would not give the very numbers it is rounded to.
    """
    found, places = {}, {id(weight): place for place, weight in enumerate(model.weights)}
    for layer in model.layers:
        for variable, quantizer, ranges in getattr(layer, "_weight_vars", ()):
            top = ranges["max_var"]
            rounded = quantizer(variable, False, weights=ranges).numpy()
            step = top.numpy() / np.float32(127)
            code = np.round(rounded / np.where(step > 0, step, 1)).astype(np.int8)
            stored = tf.constant(values(code, top.numpy()))
            again = quantizer(stored, False, weights=ranges).numpy()
            if again.tobytes() == rounded.tobytes():
                found[places[id(variable)]] = code, places[id(top)]
    return found


def values(code: np.ndarray, top: np.ndarray) -> np.ndarray:
    """The float32 weights that int8 codes stand for; `top` is what 127 stands for."""
    return code.astype(np.float32) * (top / np.float32(127))
