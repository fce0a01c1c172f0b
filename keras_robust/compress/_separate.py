"""A trained convolution as a depthwise and a pointwise one, by least squares."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from keras_robust._keras import keras
from keras_robust.compress._factorize import _own_config, _whole
from keras_robust.compress._graph import Names, replace
from keras_robust.compress._plan import Plan, choose
from keras_robust.compress._ranks import largest
from keras_robust.compress._stage import Context, freeze_layers

# The colours of an image: one filter a channel would be too few for a first layer.
_FEW_CHANNELS = 4


@dataclass(frozen=True)
class Separate:
    """Puts a DepthwiseConv2D and a 1x1 Conv2D in the place of each Conv2D.

    As in MobileNets (Howard et al. 2017, https://arxiv.org/abs/1704.04861), but from the trained
    weights: for each input channel the k x k slices of all filters, a matrix of k k x O, are cut
    to their first `depth_multiplier` singular values, the least-squares best. That leaves
    m I (k k + O) of k k I O weights, about a ninth for m = 1 and k = 3, and is exact where the
    slices of a channel are multiples of m windows. Mostly they are far from it: `plan` prints the
    relative error, and the model needs fine-tuning. Strides, padding and dilation stay with the
    first layer, bias, activation and name with the second; a regularizer or constraint of the
    kernel stays behind.

    Args:
        layers: names, or a function layer -> bool; None for each Conv2D that gets smaller and
            has more than 4 input channels.
        depth_multiplier: m, windows an input channel, >= 1.

    Raises:
        TypeError, ValueError: an argument out of its range; with a model, a layer that cannot be
            separated or would grow, by name.

    >>> layers = [keras.Input((8, 8, 8)), keras.layers.Conv2D(16, 3, use_bias=False, name="conv")]
    >>> small = Separate().apply(keras.Sequential(layers))
    >>> [layer.name for layer in small.layers], small.count_params()
    (['conv_depthwise', 'conv'], 200)
    """

    layers: Any = None
    depth_multiplier: int = 1

    name: ClassVar[str] = "separated"
    verb: ClassVar[str] = "separate"
    learning_rate: ClassVar[float] = 1e-3

    def __post_init__(self):
        object.__setattr__(self, "layers", freeze_layers(self.layers))
        _whole("depth_multiplier", self.depth_multiplier)

    def plan(self, model) -> Plan:
        """What `apply` would do to `model`: weights, and the relative error of each kernel."""
        return Plan([self._row(layer) for layer in self._chosen(model)])

    def apply(self, model):
        """A new model with the separated layers, not fine-tuned and not compiled.

        Args:
            model: functional or built sequential Keras model, in either Keras; models inside it
                are kept. It is left as it is.

        Returns:
            A Keras model of plain layers: `<name>_depthwise` and `<name>` for each one.

        Raises:
            TypeError, ValueError: as by the class.
        """
        chosen = {id(layer) for layer in self._chosen(model)}
        names = Names(model)

        def make(layer):
            if id(layer) not in chosen:
                return None
            return separated(layer, self.depth_multiplier, names(f"{layer.name}_depthwise"))

        return replace(model, make)

    def check(self, model, context: Context) -> list[str]:
        """The names of the layers to separate; raises `ValueError` when something is wrong."""
        return [layer.name for layer in self._chosen(model)]

    def wrap(self, model, context: Context):
        """A copy of the flat `model`, separated."""
        return self.apply(model)

    def callbacks(self, wrapped, context: Context) -> list:
        """None."""
        return []

    def strip(self, wrapped, model):
        """A copy of `wrapped`, whose layers are plain already."""
        return replace(wrapped, lambda layer: None)

    def broken(self, before: dict, after: dict, layers: list[str], context) -> list[str]:
        """Nothing: the kinds of the layers keep the form."""
        return []

    def _chosen(self, model) -> list:
        def reason(layer):
            why = _reason(layer, self.depth_multiplier)
            if why is None and not isinstance(self.layers, tuple):
                if layer.kernel.shape[2] <= _FEW_CHANNELS and self.layers is None:
                    why = f"it has {layer.kernel.shape[2]} input channels; name it to have it done"
            return why

        return choose(model, self.layers, reason, self.verb)

    def _row(self, layer) -> dict:
        kernel = np.asarray(layer.kernel, "float64")
        height, width, inputs, outputs = kernel.shape
        energy = np.square(np.linalg.svd(_slices(kernel), compute_uv=False))
        lost = energy[:, self.depth_multiplier :].sum() / energy.sum() if energy.any() else 0.0
        return {
            "layer": layer.name,
            "kind": type(layer).__name__,
            "rank": self.depth_multiplier,
            "weights_before": int(kernel.size),
            "weights_after": self.depth_multiplier * inputs * (height * width + outputs),
            "error": math.sqrt(lost),
        }


def separated(layer, multiplier: int, name: str) -> list:
    """The two layers that stand for a Conv2D, each with its weights."""
    kernel = np.asarray(layer.kernel, "float64")
    height, width, inputs, outputs = kernel.shape
    left, values, right = np.linalg.svd(_slices(kernel), full_matrices=False)
    root = np.sqrt(values[:, :multiplier])
    depthwise = left[:, :, :multiplier] * root[:, None]
    depthwise = depthwise.transpose(1, 0, 2).reshape(height, width, inputs, multiplier)
    pointwise = root[:, :, None] * right[:, :multiplier]
    pointwise = pointwise.reshape(1, 1, inputs * multiplier, outputs)
    first = keras.layers.DepthwiseConv2D(
        layer.kernel_size,
        strides=layer.strides,
        padding=layer.padding,
        dilation_rate=layer.dilation_rate,
        depth_multiplier=multiplier,
        use_bias=False,
        dtype=layer.dtype_policy,
        name=name,
    )
    config = _own_config(layer, None)
    config |= {"kernel_size": (1, 1), "strides": (1, 1), "dilation_rate": (1, 1)}
    second = keras.layers.Conv2D.from_config(config | {"padding": "valid"})
    biases = [np.asarray(layer.bias)] if layer.use_bias else []
    return [
        (first, [depthwise.astype("float32")]),
        (second, [pointwise.astype("float32"), *biases]),
    ]


def _slices(kernel) -> np.ndarray:
    """`(inputs, k k, outputs)`: the windows of each input channel."""
    height, width, inputs, outputs = kernel.shape
    return kernel.reshape(height * width, inputs, outputs).transpose(1, 0, 2)


def _reason(layer, multiplier: int) -> str | None:
    """Why `layer` cannot be separated, or None."""
    if type(layer) is not keras.layers.Conv2D:
        return f"{type(layer).__name__} is no Conv2D"
    if layer.groups != 1:
        return f"it has {layer.groups} groups"
    if layer.data_format != "channels_last":
        return 'its data_format is "channels_first"'
    if layer.strides[0] != layer.strides[1]:
        return f"DepthwiseConv2D takes equal strides only, and it has {tuple(layer.strides)}"
    window, outputs = math.prod(layer.kernel_size), layer.filters
    most = largest(window, outputs)
    if most < 1:
        return f"with a window of {tuple(layer.kernel_size)} and {outputs} filters it would grow"
    if multiplier > most:
        return f"it would not get smaller with depth_multiplier={multiplier}; {most} is the most"
    return None
