"""Mixed precision: TFLite computes in float32, so a half-precision model is rebuilt for it."""

import tensorflow as tf

from keras_robust._keras import keras
from keras_robust._weights import give_weights

HALF = (tf.float16, tf.bfloat16)


def computes_in_half(graph) -> bool:
    """Whether any operation of a traced `graph` returns float16 or bfloat16."""
    return any(out.dtype in HALF for op in graph.get_operations() for out in op.outputs)


def in_float32(model):
    """A copy of a mixed-precision `model` with the same weights that computes in float32.

    Raises:
        ValueError: a subclassed model, which cannot be rebuilt from its config.
    """
    # Neither Keras exports the class of functional models.
    if type(model).__name__ not in ("Functional", "Sequential"):
        raise ValueError(
            f"`model` {model.name!r} computes in half precision, which TFLite does not, and being "
            "subclassed it cannot be rebuilt here. Build it under the float32 policy, copy the "
            "weights with set_weights, and export that."
        )
    twin = keras.models.clone_model(model, clone_function=_clone)
    give_weights(twin, model.get_weights())
    return twin


def _clone(layer):
    if isinstance(layer, keras.Model):
        return in_float32(layer)
    config = layer.get_config()
    if layer.compute_dtype in ("float16", "bfloat16"):
        config["dtype"] = "float32"
    return type(layer).from_config(config)
