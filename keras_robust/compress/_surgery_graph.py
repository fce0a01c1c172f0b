"""The calls that a model is made of, nested models opened: read off, and made again."""

from collections import Counter
from collections.abc import Callable

import tensorflow as tf

from keras_robust._calls import calls_of, key_of, replaced
from keras_robust._keras import LEGACY, check_model, keras
from keras_robust.compress._graph import names_of


class Slot:
    """Stands for one tensor of a model: which it is, and its static shape."""

    def __init__(self, shape):
        self.shape = tuple(shape)


class Call:
    """One call of a layer: its arguments hold a `Slot` where the model has a tensor."""

    def __init__(self, layer, args, kwargs, outputs):
        self.layer, self.args, self.kwargs, self.outputs = layer, args, kwargs, outputs
        leaves = tf.nest.flatten((args, kwargs))
        self.inputs = [leaf for leaf in leaves if isinstance(leaf, Slot)]


class Graph:
    """A model as a flat list of calls, from one input to one output.

    Args:
        model: a built Sequential or functional model with one input and one output, which
            may hold others.

    Raises:
        TypeError: not a Keras model, or one of the other Keras.
        ValueError: a subclassed or unbuilt model, or several inputs or outputs.
    """

    def __init__(self, model):
        _check(model)
        self.model = model
        self.calls: list[Call] = []
        self.input = Slot(model.inputs[0].shape)
        (self.output,) = self._open(model, [self.input], None)
        self.uses = Counter(slot for call in self.calls for slot in call.inputs)
        self.uses[self.output] += 1
        self.names = names_of(call.layer for call in self.calls)

    def _open(self, model, given, training):
        graph = _functional(model)
        slots = {key_of(tensor): slot for tensor, slot in zip(graph.inputs, given, strict=True)}
        for layer, args, kwargs, tensors in calls_of(graph):
            args, kwargs = replaced((args, kwargs), slots)
            tensors = tf.nest.flatten(tensors)
            if isinstance(layer, keras.Model):
                inner = kwargs.get("training")
                inputs = [s for s in tf.nest.flatten((args, kwargs)) if isinstance(s, Slot)]
                outputs = self._open(layer, inputs, training if inner is None else inner)
            else:
                # tf_keras: a nested model called with training=False hands that on.
                if LEGACY and training is not None and layer._expects_training_arg:
                    if kwargs.get("training") is None:
                        kwargs = {**kwargs, "training": training}
                outputs = [Slot(tensor.shape) for tensor in tensors]
                self.calls.append(Call(layer, args, kwargs, outputs))
            slots.update(zip(map(key_of, tensors), outputs, strict=True))
        return [slots[key_of(tensor)] for tensor in graph.outputs]

    def run(self, value, step: Callable, watch: Callable | None = None):
        """What the model makes of `value`, by `step(call, args, kwargs)` for each call.

        Args:
            value: eager or symbolic, for the model's input.
            step: makes the call on real tensors and returns its outputs.
            watch: given each output as `watch(slot, value)`.
        """
        values, left = {self.input: value}, Counter(self.uses)

        def real(leaf):
            return values[leaf] if isinstance(leaf, Slot) else leaf

        for call in self.calls:
            args, kwargs = tf.nest.map_structure(real, (call.args, call.kwargs))
            results = tf.nest.flatten(step(call, args, kwargs))
            for slot, result in zip(call.outputs, results, strict=True):
                values[slot] = result
                if watch is not None:
                    watch(slot, result)
            for slot in call.inputs:
                left[slot] -= 1
                if not left[slot]:
                    values.pop(slot, None)  # Activations of a whole model would add up.
        return values[self.output]


def _check(model) -> None:
    check_model(model)
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras model, got {type(model).__name__}.")
    _check_graph(model, "`model`")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            "`model` must have one input and one output (logits), got "
            f"{len(model.inputs)} inputs and {len(model.outputs)} outputs."
        )


def _check_graph(model, where: str) -> None:
    if type(model).__name__ not in ("Functional", "Sequential"):
        raise ValueError(
            f"{where} is a subclassed model ({type(model).__name__}), whose layers have no graph "
            "to follow. Build it as a functional model: inputs = keras.Input(...), "
            "keras.Model(inputs, outputs)."
        )
    if not model.built or not getattr(model, "inputs", None):
        raise ValueError(
            f"{where} has no weights yet. Give its first layer an input shape, or call it once on "
            "a batch."
        )
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            _check_graph(layer, f"the model {layer.name!r} inside `model`")


def _functional(model):
    """The graph of a model: Keras 3 keeps that of a Sequential apart."""
    return model if LEGACY or not isinstance(model, keras.Sequential) else model._functional
