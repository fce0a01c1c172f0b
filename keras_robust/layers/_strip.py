"""A model without its virtual layers."""

import tensorflow as tf

from keras_robust._calls import calls_of, ends_of, input_like, key_of, rebuilt, replaced
from keras_robust._keras import check_model, keras
from keras_robust._random_state import keep_random_state
from keras_robust._weights import give_weights
from keras_robust.layers._low_rank_virtual import LowRankVirtual


def strip_virtual(model):
    """A copy of `model` without its virtual layers: same weights, same outputs bit for bit.

    Functional and sequential models, nested, shared, with several inputs and outputs; `model`
    is left as it is. The copy is not compiled.

    Args:
        model: a built Keras model, functional or sequential.

    Raises:
        TypeError: not a Keras model, or one of the other Keras.
        ValueError: a subclassed model, one without weights yet, or a virtual layer inside
            something that cannot be rebuilt; each by name.

    >>> layers = [keras.Input((4,)), keras.layers.Dense(8), kr.layers.LowRankVirtual(2)]
    >>> model = keras.Sequential([*layers, keras.layers.Dense(3)])
    >>> len(model.layers), len(strip_virtual(model).layers)
    (3, 2)
    """
    check_model(model)
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras model, got {type(model).__name__}.")
    strip = _Strip()
    with keep_random_state():
        copy = strip.model(model)
    strip.copy_flags(model, copy)
    return copy


def virtual_layers(model) -> list:
    """The virtual layers in a model or layer, also those inside nested models and wrappers."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, LowRankVirtual)]


def copy_trainable(old, new) -> None:
    """`trainable` of a built layer and of all inside it, for its copy."""
    pairs = list(zip(old._flatten_layers(), new._flatten_layers(), strict=True))
    # Those that hold others first, whose flag overwrites theirs.
    for one, other in sorted(pairs, key=_holds_none):
        other.trainable = one.trainable


class _Strip:
    """Replays the calls of a model on copies of its layers; a shared layer stays shared."""

    def __init__(self):
        self.copies = {}

    def model(self, model):
        if type(model).__name__ not in ("Functional", "Sequential"):
            virtual = [layer.name for layer in virtual_layers(model)]
            raise ValueError(
                f"Model {model.name!r} ({type(model).__name__}) is subclassed and cannot be "
                f"rebuilt without its virtual layers {virtual}. Leave them out where the model is "
                "made and copy the weights, or build it with the functional API."
            )
        if not model.built or not model.inputs:
            raise ValueError(
                f"Model {model.name!r} has no weights yet. Build it first, for instance with an "
                "Input as its first layer."
            )
        return (
            self._sequential(model) if isinstance(model, keras.Sequential) else self._graph(model)
        )

    def copy_flags(self, model, copy) -> None:
        """`trainable` from outside in: a model's flag overwrites those of all layers inside it."""
        copy.trainable = model.trainable
        for old in model.layers:
            new = self.copies.get(id(old))
            if new is None or not isinstance(old, keras.layers.Layer):
                continue
            if isinstance(old, keras.Model) and virtual_layers(old):
                self.copy_flags(old, new)
                continue
            copy_trainable(old, new)

    def _sequential(self, model):
        kept = [layer for layer in model.layers if not isinstance(layer, LowRankVirtual)]
        inputs = input_like(model.inputs[0])
        copy = keras.Sequential([inputs, *map(self.layer, kept)], name=model.name)
        self._copy_weights(kept)
        return copy

    def _graph(self, model):
        tensors = {key_of(tensor): input_like(tensor) for tensor in model.inputs}
        layers = []
        for layer, args, kwargs, outputs in calls_of(model):
            args, kwargs = replaced((args, kwargs), tensors)
            if isinstance(layer, LowRankVirtual):
                results = args[0] if args else kwargs["inputs"]
            else:
                results = self.layer(layer)(*args, **kwargs)
                layers.append(layer)
            keys = [key_of(tensor) for tensor in tf.nest.flatten(outputs)]
            tensors.update(zip(keys, tf.nest.flatten(results), strict=True))
        given, returned = ends_of(model)
        copy = keras.Model(
            tf.nest.map_structure(lambda t: tensors[key_of(t)], given),
            tf.nest.map_structure(lambda t: tensors[key_of(t)], returned),
            name=model.name,
        )
        self._copy_weights(layers)
        return copy

    def layer(self, layer):
        if id(layer) not in self.copies:
            self.copies[id(layer)] = self._copied(layer)
        return self.copies[id(layer)]

    def _copied(self, layer):
        if not isinstance(layer, keras.layers.Layer):
            return layer  # A bare operation of Keras 3, which holds nothing.
        virtual = virtual_layers(layer)
        if virtual and isinstance(layer, keras.Model):
            return self.model(layer)
        if virtual:
            raise ValueError(
                f"The virtual layer {virtual[0].name!r} sits inside layer {layer.name!r} "
                f"({type(layer).__name__}), from where it cannot be taken. Put it beside that "
                "layer."
            )
        return rebuilt(layer)

    def _copy_weights(self, layers) -> None:
        for layer in layers:
            nested = isinstance(layer, keras.Model) and virtual_layers(layer)
            if not nested and getattr(layer, "weights", None):
                give_weights(self.layer(layer), layer.get_weights())


def _holds_none(pair) -> bool:
    return len(list(pair[0]._flatten_layers())) == 1
