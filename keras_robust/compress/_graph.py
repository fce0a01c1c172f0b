"""A model's calls one by one, and the model again with some layers replaced by others."""

from collections import Counter
from collections.abc import Callable

import tensorflow as tf

from keras_robust._calls import calls_of, ends_of, input_like, key_of, rebuilt, replaced
from keras_robust._keras import LEGACY, check_model, keras
from keras_robust._weights import give_weights
from keras_robust.layers._strip import copy_trainable


def check_graph(model, argument: str = "model") -> None:
    """Raises unless `model` and each model inside it is built, functional or sequential.

    Raises:
        TypeError: not a Keras model, or one of the other Keras.
        ValueError: a subclassed model, or one without weights yet; each by name.
    """
    check_model(model, argument)
    if not isinstance(model, keras.Model):
        raise TypeError(f"`{argument}` must be a Keras model, got {type(model).__name__}.")
    for inner in models_in(model):
        if type(inner).__name__ not in ("Functional", "Sequential"):
            raise ValueError(
                f"The model {inner.name!r} of `{argument}` ({type(inner).__name__}) is subclassed "
                "and has no graph of layers. Build it with the functional API: inputs = "
                "keras.Input(...), keras.Model(inputs, outputs)."
            )
        if not inner.built or not inner.inputs:
            raise ValueError(
                f"The model {inner.name!r} of `{argument}` has no weights yet. Build it first, "
                "for instance with an Input as its first layer."
            )


def models_in(model):
    """`model` and all models inside it."""
    yield model
    for layer in getattr(model, "layers", ()):
        if isinstance(layer, keras.Model):
            yield from models_in(layer)


def plain_layers(model):
    """The layers of a checked model and of the models inside it, each once."""
    found = {id(own): own for inner in models_in(model) for own in inner.layers}
    return [layer for layer in found.values() if not isinstance(layer, keras.Model)]


def calls(model):
    """The calls of a checked model, nested ones opened: layer, inputs and outputs.

    Inputs and outputs are flat lists of symbolic tensors; those inside a nested model are its
    own, whose batch size is open.
    """
    # Sequential of Keras 3 holds its graph in a model of its own.
    graph = getattr(model, "_functional", None) if not LEGACY else None
    for layer, args, kwargs, outputs in calls_of(model if graph is None else graph):
        if isinstance(layer, keras.Model):
            yield from calls(layer)
            continue
        leaves = tf.nest.flatten((args, kwargs))
        given = [leaf for leaf in leaves if getattr(leaf, "_keras_history", None) is not None]
        yield layer, given, tf.nest.flatten(outputs)


def replace(model, make: Callable):
    """A new model in which the layers that `make(layer)` returns stand in the place of `layer`.

    `make` returns None to copy a layer as it is, or a list of `(new layer, its weights)` that
    are called one after the other. A layer that is called several times is replaced once, and
    its replacement called as often. `model` is left as it is; the new one is not compiled.

    Args:
        model: a model that `check_graph` takes.
        make: called once with each layer that is no model.

    Raises:
        ValueError: a layer that cannot be rebuilt from its config, by name.
    """
    rewrite = _Replace(make)
    copy = rewrite.model(model)
    # From outside in: a model's flag overwrites those of all layers inside it.
    copy.trainable = model.trainable
    for old in (layer for own in models_in(model) for layer in own.layers):
        for new in rewrite.done.get(id(old), ()):
            if type(new) is type(old) and not isinstance(old, keras.Model):
                copy_trainable(old, new)
            else:
                new.trainable = old.trainable
    return copy


def names_of(called) -> dict:
    """Layer's id -> its name, with a number after it where models inside a model use it twice.

    Args:
        called: the layers, in the order of their calls.
    """
    names, taken = {}, set()
    for layer in called:
        if id(layer) not in names:
            name, number = layer.name, 0
            while name in taken:
                number += 1
                name = f"{layer.name}_{number}"
            names[id(layer)] = name
            taken.add(name)
    return names


class Names:
    """Names for new layers, none of which the model has."""

    def __init__(self, model):
        self.taken = Counter(layer.name for layer in plain_layers(model))

    def __call__(self, name: str) -> str:
        free, number = name, 1
        while free in self.taken:
            number += 1
            free = f"{name}_{number}"
        self.taken[free] += 1
        return free


class _Replace:
    """Replays the calls of a model on copies of its layers, or on what stands for them."""

    def __init__(self, make):
        self.make = make
        self.done = {}
        self.weights = []

    def model(self, model):
        build = self._sequential if isinstance(model, keras.Sequential) else self._graph
        first = len(self.weights)
        copy = build(model)
        for new, values in self.weights[first:]:
            if values:
                give_weights(new, values)
        return copy

    def _sequential(self, model):
        layers = [new for old in model.layers for new in self.chain(old)]
        return keras.Sequential([input_like(model.inputs[0]), *layers], name=model.name)

    def _graph(self, model):
        tensors = {key_of(tensor): input_like(tensor) for tensor in model.inputs}
        for layer, args, kwargs, outputs in calls_of(model):
            args, kwargs = replaced((args, kwargs), tensors)
            first, *rest = self.chain(layer)
            results = first(*args, **kwargs)
            for own in rest:
                results = own(results)
            keys = [key_of(tensor) for tensor in tf.nest.flatten(outputs)]
            tensors.update(zip(keys, tf.nest.flatten(results), strict=True))
        given, returned = ends_of(model)
        return keras.Model(
            tf.nest.map_structure(lambda t: tensors[key_of(t)], given),
            tf.nest.map_structure(lambda t: tensors[key_of(t)], returned),
            name=model.name,
        )

    def chain(self, layer) -> list:
        if id(layer) not in self.done:
            self.done[id(layer)] = self._made(layer)
        return self.done[id(layer)]

    def _made(self, layer) -> list:
        if not isinstance(layer, keras.layers.Layer):
            return [layer]  # A bare operation of Keras 3, which holds nothing.
        if isinstance(layer, keras.Model):
            return [self.model(layer)]
        made = self.make(layer)
        if made is None:
            made = [(rebuilt(layer), layer.get_weights())]
        self.weights.extend(made)
        return [new for new, _ in made]
