"""The model to export: its checks, its images, and its call as one traced function."""

import os
import pathlib

import numpy as np
import tensorflow as tf

from keras_robust._checks import check_images, check_logit_model, check_logits
from keras_robust._keras import NAME, is_model
from keras_robust.compress.packed import unpack

CHUNK = 32


def opened(model):
    """The model in a file of `kr.compress.pack`, where a path is given; else `model` itself."""
    if not isinstance(model, (str, os.PathLike)):
        return model
    if pathlib.Path(model).suffix != ".krz":
        raise ValueError(
            f"`model` must be a Keras model or the path of a .krz file, got {str(model)!r}. Load "
            "a .keras file with keras.models.load_model."
        )
    return unpack(model)


def check_source(model) -> None:
    """Raises unless `model` is a built Keras model with one input that returns logits."""
    check_logit_model(model)
    if not is_model(model):
        raise TypeError(
            f"`model` must be a Keras model to be exported, got {type(model).__name__}. Wrap a "
            f"callable in a keras.Model of {NAME}."
        )
    if not model.built:
        raise ValueError(
            f"`model` {model.name!r} has no weights yet. Call it on a batch, train it or load "
            "its weights first."
        )
    if len(getattr(model, "inputs", None) or [0]) != 1:
        raise ValueError(
            f"`model` {model.name!r} has {len(model.inputs)} inputs, but only classifiers of one "
            "input are exported. Concatenate them, or export the part with one input."
        )
    wrapped = [
        layer.name
        for layer in getattr(model, "layers", [])
        if type(layer).__name__ in ("PruneLowMagnitude", "ClusterWeights")
    ]
    if wrapped:
        raise ValueError(
            f"`model` still has training wrappers around its layers {wrapped[:3]}. Strip them "
            "first, with strip_pruning or strip_clustering of tensorflow_model_optimization."
        )


def input_shape(model, images) -> tuple:
    """The shape of one input, from the model where it tells, else from `images`.

    Axes whose length the model leaves open are None.
    """
    try:
        shape = model.input_shape
    except (AttributeError, RuntimeError, ValueError):  # A subclassed model has none.
        shape = None
    if isinstance(shape, list | dict):
        shape = (
            None
            if len(shape) != 1
            else next(iter(shape if isinstance(shape, list) else shape.values()))
        )
    if shape is None:
        if images is None:
            raise ValueError(
                f"The input shape of `model` {model.name!r} ({type(model).__name__}) cannot be "
                "read off it. Give some images with `check`."
            )
        return tuple(images.shape[1:])
    shape = tuple(shape[1:])
    if images is not None:
        check_shape(images, shape)
    return shape


def check_shape(images, shape, argument: str = "images") -> None:
    """Raises `ValueError` unless a batch of `images` fits inputs of `shape`."""
    got = tuple(images.shape[1:])
    if len(got) != len(shape) or any(s not in (None, g) for g, s in zip(got, shape, strict=True)):
        raise ValueError(
            f"`{argument}` have shape {got} each, but the model takes {tuple(shape)}. Give "
            "images as the model was trained on."
        )


def as_images(value, argument: str, limit: int) -> np.ndarray:
    """At most `limit` images as float32 `(n, ...)`: evenly spread over an array, the first
    ones of a `tf.data.Dataset` of images or `(images, labels)`, batched or not.
    """
    if isinstance(value, tf.data.Dataset):
        value = _from_dataset(value, argument, limit)
    elif callable(value):
        raise TypeError(
            f"`{argument}` must be images, an array or a tf.data.Dataset, got a function. Give "
            f"what it yields: np.concatenate([batch[0] for batch in {argument}()])."
        )
    elif isinstance(value, tuple) and len(value) == 2 and np.ndim(value[1]) < np.ndim(value[0]):
        raise TypeError(
            f"`{argument}` must be images, an array or a tf.data.Dataset, got a tuple, which "
            f"looks like (images, labels). Give the images alone: {argument}=x."
        )
    images = check_images(value, argument=argument).numpy()
    if len(images) > limit:
        images = images[np.linspace(0, len(images) - 1, limit).round().astype(int)]
    return images


def _from_dataset(dataset, argument: str, limit: int) -> np.ndarray:
    def first(element):
        return element[0] if isinstance(element, tuple | list) else element

    spec = first(dataset.element_spec)
    if not isinstance(spec, tf.TensorSpec):
        raise ValueError(
            f"`{argument}` must be a tf.data.Dataset of images or (images, labels), got elements "
            f"{dataset.element_spec}."
        )
    # Images have 3 axes, a batch of them 4; anything else is taken as a batch.
    found, batched = [], spec.shape.rank != 3
    for element in dataset:
        found.append(first(element).numpy() if batched else first(element).numpy()[None])
        if sum(map(len, found)) >= limit:
            break
    if not found:
        raise ValueError(f"`{argument}` is an empty dataset. Give at least one image.")
    return np.concatenate(found)[:limit]


def logits_of(model, images: np.ndarray) -> np.ndarray:
    """The model's own logits, `(n, classes)` float32, computed eagerly in chunks.

    Raises:
        ValueError: they are probabilities, NaN or infinite.
    """
    parts = [
        tf.cast(model(tf.constant(images[k : k + CHUNK]), training=False), tf.float32).numpy()
        for k in range(0, len(images), CHUNK)
    ]
    logits = np.concatenate(parts)
    # Not in the trace: there, what a subclassed model ends in shows in no value.
    check_logits(tf.constant(logits))
    return logits


class Traced(tf.Module):
    """The model's call on `images` as a traced function that owns its variables.

    Only what the call uses is tracked: exporting the model object itself would trace its
    training as well, and Keras 3 hides its variables from the converter's freezing.
    """

    def __init__(self, model, shape, outputs):
        super().__init__()
        spec = tf.TensorSpec((None, *shape), tf.float32, name="images")

        def call(images):
            logits = tf.cast(model(images, training=False), tf.float32)
            check_logits(logits)
            return outputs(logits)

        self.call = tf.function(call, input_signature=[spec], autograph=False)
        self.concrete = self.call.get_concrete_function()
        self.used = list(self.concrete.graph.variables)

    def fake_quantized(self) -> bool:
        """Whether the graph holds fake quantization, hence its own ranges."""
        graph = self.concrete.graph.as_graph_def()
        bodies = [graph.node, *(function.node_def for function in graph.library.function)]
        return any(node.op.startswith("FakeQuant") for body in bodies for node in body)
