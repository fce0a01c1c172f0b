"""Bytes of an artifact, plain and gzipped, so that every stage of a pipeline compares."""

import numpy as np
import tensorflow as tf

from keras_robust._files import content_sizes
from keras_robust.export._quiet import quiet
from keras_robust.export._source import Traced

CONVERTED = "float32 .tflite conversion"
WEIGHTS = "float32 weights (it could not be converted to .tflite)"
WRAPPED = "float32 weights (TF-MOT wrappers not stripped)"


def model_sizes(model, input_shape) -> tuple[int, int, str]:
    """Bytes, gzip bytes and what was measured, for a Keras model in memory.

    Args:
        model: of the Keras that runs; left as it is.
        input_shape: of one input, without the batch axis.
    """
    if any(_is_wrapper(layer) for layer in _layers(model)):
        return *content_sizes(_weights(model)), WRAPPED
    try:
        return *content_sizes(_convert(model, input_shape)), CONVERTED
    except Exception:  # the converter raises many types; the weights always work.
        return *content_sizes(_weights(model)), WEIGHTS


def _convert(model, input_shape) -> bytes:
    traced = Traced(model, input_shape, lambda logits: logits)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced.concrete], traced)
    with quiet():
        return converter.convert()


def _weights(model) -> bytes:
    """All weights in float32, one after the other; of a wrapper only what it wraps."""
    seen, parts = set(), []
    for layer in _layers(model):
        for weight in (layer.layer if _is_wrapper(layer) else layer).weights:
            if id(weight) not in seen:
                seen.add(id(weight))
                parts.append(np.asarray(weight, np.float32).tobytes())
    return b"".join(parts)


def _layers(model):
    return getattr(model, "layers", None) or [model]


def _is_wrapper(layer) -> bool:
    """TF-MOT's pruning and clustering wrappers: their masks and indices are not shipped."""
    names = {base.__name__ for base in type(layer).__mro__}
    return bool(names & {"PruneLowMagnitude", "ClusterWeights"})
