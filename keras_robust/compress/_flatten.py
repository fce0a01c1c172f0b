"""One flat functional copy of a model: nested models opened, weights copied, nothing shared."""

from collections import Counter

import tensorflow as tf

from keras_robust._keras import check_model, keras
from keras_robust._weights import give_weights

_WRAPPERS = (
    "PruneLowMagnitude",
    "ClusterWeights",
    "QuantizeWrapper",
    "QuantizeWrapperV2",
    "QuantizeAnnotate",
    "QuantizeLayer",
)


def flatten(model):
    """A functional model with copies of `model`'s layers and weights and no model inside it.

    TF-MOT wraps layers in place and shares them with the model it was given, and its
    quantization takes no nested models; every stage therefore works on such a copy.
    Layers keep their names; where two nested models use the same name, the later layer is
    called `<model>_<layer>`. A layer with weights that is called several times stays one
    layer; one without weights becomes one copy a call.

    Args:
        model: a built Sequential or functional model with one input and one output, which
            may hold others.

    Raises:
        TypeError: not a Keras model, or one of the other Keras.
        ValueError: a subclassed model, an unbuilt one, one that TF-MOT has wrapped, or a
            layer that cannot be rebuilt from its config; each is named.
    """
    check_flat(model)
    rebuild = _Rebuild()
    reference = model.inputs[0]
    new_input = keras.Input(
        shape=reference.shape[1:],
        batch_size=reference.shape[0],
        dtype=reference.dtype,
        name=rebuild.unique(reference._keras_history.layer.name, None),
    )
    outputs = rebuild.run(model, [new_input], None, None)
    flat = keras.Model(new_input, outputs[0], name=model.name)
    rebuild.copy_weights()
    return flat


def clone(model):
    """A copy of a flat model with its weights, sharing nothing with it."""
    copy = keras.models.clone_model(model)
    give_weights(copy, model.get_weights())
    return copy


def check_flat(model, argument: str = "model") -> None:
    """Raises unless `flatten` can rebuild `model`; see there."""
    check_model(model, argument)
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`{argument}` must be a Keras model, got {type(model).__name__}. TF-MOT wraps "
            "layers, so a bare function cannot be compressed."
        )
    _check_graph(model, argument, inside=None)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            f"`{argument}` must have one input and one output (logits), got "
            f"{len(model.inputs)} inputs and {len(model.outputs)} outputs."
        )


def _check_graph(model, argument: str, inside: str | None) -> None:
    where = f"`{argument}`" if inside is None else f"the model {model.name!r} inside `{argument}`"
    if not model._is_graph_network:
        if isinstance(model, keras.Sequential):
            raise ValueError(
                f"{where} is a Sequential model that is not built. Give its first layer an "
                "input_shape, or call it once on a batch, before compressing it."
            )
        raise ValueError(
            f"{where} is a subclassed model ({type(model).__name__}), whose layers TF-MOT cannot "
            "reach. Build it as a functional model: inputs = keras.Input(...), "
            "keras.Model(inputs, outputs)."
        )
    for layer in model.layers:
        if type(layer).__name__ in _WRAPPERS:
            raise ValueError(
                f"`{argument}` is already wrapped by TF-MOT (layer {layer.name!r}, "
                f"{type(layer).__name__}). Strip it first, or give the plain model."
            )
        if isinstance(layer, keras.Model):
            _check_graph(layer, argument, inside=layer.name)


class _Rebuild:
    """Replays the calls of a model on copies of its layers."""

    def __init__(self):
        self.copies = {}
        self.pairs = []
        self.names = Counter()

    def run(self, model, inputs, prefix, training):
        tensors = {}
        for reference, value in zip(model.inputs, inputs, strict=True):
            self._store(model, tensors, str(id(reference)), value)
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if node.is_input or any(key not in tensors for key in node.flat_input_ids):
                    continue
                args, kwargs = node.map_arguments(tensors)
                outputs = self._call(node.layer, args, kwargs, prefix, training)
                for key, value in zip(node.flat_output_ids, tf.nest.flatten(outputs), strict=True):
                    self._store(model, tensors, key, value)
        return [tensors[str(id(output))].pop() for output in model.outputs]

    @staticmethod
    def _store(model, tensors, key, value):
        # `Node.map_arguments` pops one entry for each use of a tensor.
        tensors[key] = [value] * model._tensor_usage_count[key]

    def _call(self, layer, args, kwargs, prefix, training):
        if isinstance(layer, keras.Model):
            inner = kwargs.get("training")
            inputs = tf.nest.flatten(args) if args else tf.nest.flatten(kwargs["inputs"])
            name = layer.name if prefix is None else f"{prefix}_{layer.name}"
            outputs = self.run(layer, inputs, name, training if inner is None else inner)
            return outputs[0] if len(outputs) == 1 else outputs
        # A nested model called with training=False hands that on to its layers.
        if training is not None and layer._expects_training_arg:
            if kwargs.get("training") is None:
                kwargs["training"] = training
        return self._copy(layer, prefix)(*args, **kwargs)

    def _copy(self, layer, prefix):
        if id(layer) in self.copies and layer.weights:
            return self.copies[id(layer)]
        config = layer.get_config()
        config["name"] = self.unique(layer.name, prefix)
        try:
            copy = type(layer).from_config(config)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"The layer {layer.name!r} ({type(layer).__name__}) of the model cannot be "
                "rebuilt from its get_config(). Give it a get_config that returns all its "
                f"arguments. ({error})"
            ) from error
        self.copies[id(layer)] = copy
        self.pairs.append((layer, copy))
        return copy

    def unique(self, name, prefix):
        if name in self.names and prefix is not None:
            name = f"{prefix}_{name}"
        candidate, number = name, 0
        while candidate in self.names:
            number += 1
            candidate = f"{name}_{number}"
        self.names[candidate] += 1
        return candidate

    def copy_weights(self):
        for layer, copy in self.pairs:
            if layer.weights:
                give_weights(copy, layer.get_weights())
