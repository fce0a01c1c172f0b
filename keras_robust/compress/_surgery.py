"""A model without some of its units: a new, smaller model of the same plain layers."""

import numpy as np

from keras_robust._keras import keras
from keras_robust._weights import give_weights
from keras_robust.compress._surgery_constants import added_to_bias, constants
from keras_robust.compress._surgery_kinds import SEPARABLE, kind_of
from keras_robust.layers._strip import copy_trainable


def without(units, gone):
    """A new model without the units `gone`; the one that `units` was made of stays as it is.

    What a removed unit gave the next layer all the time, whatever the input, is added to that
    layer's bias, where it has one and no padded border stands in the way.

    Args:
        units: a `Units`.
        gone: the units to remove, none of them in `units.fixed`.

    Returns:
        A Sequential model for a Sequential one, else a functional one; nested models are
        opened. Not compiled.
    """
    surgery = _Surgery(units, gone)
    old = units.graph.model
    if isinstance(old, keras.Sequential) and not any(
        isinstance(layer, keras.Model) for layer in old.layers
    ):
        layers = [surgery.layer(call) for call in units.graph.calls]
        model = keras.Sequential([_input(old), *layers], name=old.name)
    else:
        inputs = _input(old)
        outputs = units.graph.run(inputs, surgery.step)
        model = keras.Model(inputs, outputs, name=old.name)
    surgery.set_weights()
    return model


class _Surgery:
    def __init__(self, units, gone):
        self.units, self.gone = units, np.fromiter(gone, int)
        self.values = constants(units)
        self.made, self.copies = {}, []

    def step(self, call, args, kwargs):
        return self.layer(call)(*args, **kwargs)

    def layer(self, call):
        """The smaller layer of a call; one that is called twice stays one."""
        kind, _ = kind_of(call)
        # What a Reshape makes depends on what it is given.
        key = (id(call.layer), self._shape(call) if kind == "reshape" else None)
        if key not in self.made:
            self.made[key] = self._copy(call, kind)
        return self.made[key]

    def _copy(self, call, kind):
        layer = call.layer
        if not isinstance(layer, keras.layers.Layer):
            return layer  # A bare operation of Keras 3, which holds nothing.
        config = layer.get_config()
        config["name"] = self._name(layer)
        if kind == "mix":
            size = int(self._kept(self.units.uses[id(layer)].outputs).sum())
            config["units" if "units" in config else "filters"] = size
        if kind == "reshape":
            config["target_shape"] = self._shape(call)
        try:
            copy = type(layer).from_config(config)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise ValueError(
                f"Layer {layer.name!r} ({type(layer).__name__}) cannot be rebuilt from its "
                f"get_config(). Give it one that returns all its arguments. ({error})"
            ) from error
        self.copies.append((layer, copy))
        return copy

    def _shape(self, call) -> tuple:
        """The `target_shape` that a Reshape has without the units."""
        size = int(self._kept(self.units.of[call.outputs[0]]).sum())
        sizes = (*call.outputs[0].shape[1:-1], size)
        return tuple(-1 if n is None else n for n in sizes)

    def _name(self, layer) -> str:
        """That of the layer, with a number after it where a Reshape becomes several."""
        names = self.units.graph.names
        name, number, made = names[id(layer)], 1, {copy.name for copy in self.made.values()}
        if name not in made:
            return name
        while f"{name}_{number}" in made | set(names.values()):
            number += 1
        return f"{name}_{number}"

    def set_weights(self) -> None:
        for layer, copy in self.copies:
            if layer.weights:
                give_weights(copy, self._weights(layer))
            copy_trainable(layer, copy)  # All inside is made by now.

    def _weights(self, layer) -> list[np.ndarray]:
        weights, use = layer.get_weights(), self.units.uses.get(id(layer))
        if use is None:
            return weights
        ins, outs = self._kept(use.inputs), self._kept(use.outputs)
        if use.kind == "norm":
            return [weight[ins] for weight in weights]
        if use.kind == "depthwise":
            return [weights[0][..., ins, :], *(bias[outs] for bias in weights[1:])]
        more = added_to_bias(use, self.values[use.call.inputs[0]], ~ins)
        if more is not None:
            weights[-1] = (weights[-1] + more).astype(weights[-1].dtype)
        if type(layer).__name__ in SEPARABLE:
            spread = np.repeat(ins, layer.depth_multiplier)
            kernels = [weights[0][..., ins, :], weights[1][..., spread, :][..., outs]]
        else:
            kernels = [weights[0][..., ins, :][..., outs]]
        return [*kernels, *(bias[outs] for bias in weights[len(kernels) :])]

    def _kept(self, units) -> np.ndarray:
        return ~np.isin(units, self.gone)


def _input(model):
    tensor = model.inputs[0]
    name = tensor._keras_history[0].name
    dtype = tensor.dtype if isinstance(tensor.dtype, str) else tensor.dtype.name
    kwargs = {"batch_size": tensor.shape[0], "dtype": dtype, "name": name}
    return keras.Input(tuple(tensor.shape[1:]), **kwargs)
