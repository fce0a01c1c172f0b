"""The calls that a functional model is made of, in either Keras, to follow or to replay."""

import tensorflow as tf

from keras_robust._keras import LEGACY, keras


def calls_of(model):
    """The calls that make up a functional model: layer, arguments, outputs, in order."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            if LEGACY:
                yield node.layer, node.call_args, node.call_kwargs, node.outputs
            else:
                arguments = node.arguments
                yield node.operation, arguments.args, arguments.kwargs, node.output_tensors


def key_of(tensor) -> tuple:
    """What a symbolic tensor is known by: equal for all handles of one output."""
    layer, node, index = tensor._keras_history[:3]
    return id(layer), node, index


def replaced(value, tensors: dict):
    """A structure of arguments with other tensors, by `key_of`, for its symbolic ones."""

    def replace(leaf):
        known = getattr(leaf, "_keras_history", None) is not None
        return tensors[key_of(leaf)] if known else leaf

    return tf.nest.map_structure(replace, value)


def ends_of(model):
    """The inputs and outputs of a functional model, in the structure it was given them."""
    if LEGACY:
        return model._nested_inputs, model._nested_outputs
    return model._inputs_struct, model._outputs_struct


def input_like(tensor):
    """A new input of the shape, type and name of a model's input."""
    options = {"batch_size": tensor.shape[0], "dtype": tf.as_dtype(tensor.dtype).name}
    return keras.Input(tensor.shape[1:], name=tensor._keras_history[0].name, **options)


def rebuilt(layer):
    """A new layer of the same config; raises `ValueError` by name where there is none."""
    try:
        return type(layer).from_config(layer.get_config())
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"Layer {layer.name!r} ({type(layer).__name__}) cannot be rebuilt from its "
            f"get_config(). Give it one that returns all its arguments. ({error})"
        ) from error
