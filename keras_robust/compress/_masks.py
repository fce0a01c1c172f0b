"""Weights that are zero and stay so while a model trains, in either Keras.

A mask is a constraint of the kernel's variable: every Keras optimizer applies it in the train
step, after the update, so neither momentum nor weight decay nor XLA brings a weight back. Forward
passes, an attack's too, see a plain kernel and cost nothing more.
"""

import copy

import numpy as np
import tensorflow as tf

from keras_robust._keras import check_model, keras
from keras_robust._weights import give_weights
from keras_robust.compress._stage import freeze_layers
from keras_robust.layers import (
    BinaryConv2D,
    BinaryDense,
    BinaryDepthwiseConv2D,
    LowRankVirtual,
)

KINDS = (
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "Conv1DTranspose",
    "Conv2DTranspose",
    "Conv3DTranspose",
    "SeparableConv1D",
    "SeparableConv2D",
    "Dense",
)
# Training sets their moving averages, also where they have no other weights.
_STATISTICS = ("BatchNormalization", "SyncBatchNormalization")
_BINARY = tuple(kind.__name__ for kind in (BinaryConv2D, BinaryDense, BinaryDepthwiseConv2D))


class Masked:
    """The constraint: the weights times `mask`, a variable of zeros and ones."""

    def __init__(self, variable, mask):
        self.own = variable.constraint
        self.mask = tf.Variable(np.asarray(mask, "float32"), trainable=False, name="mask")

    def __call__(self, weights):
        weights = tf.convert_to_tensor(weights if self.own is None else self.own(weights))
        return weights * tf.cast(self.mask, weights.dtype)


def keep_zeros(model, layers=None):
    """A copy of `model` whose zero weights stay zero, whoever trains it.

    For a model that has been pruned and is to be trained on: with `fit`, with
    `kr.AdversarialTraining`, with any Keras optimizer.

    Args:
        model: a built Sequential or functional model.
        layers: names, or a function layer -> bool; None for every convolution (but depthwise
            ones) and Dense.

    Returns:
        A model like `model`. A file it is saved to holds the weights alone: what is loaded
        trains freely again.

    Raises:
        TypeError, ValueError: not a model that can be copied, or no such layer.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> kernel = model.layers[-1].kernel
    >>> kernel.assign(np.eye(4, 3)) is None
    False
    >>> masked = keep_zeros(model)
    >>> masked.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> history = masked.fit(np.ones((8, 4)), np.arange(8) % 3, verbose=0)
    >>> int(np.sum(np.asarray(masked.layers[-1].kernel) == 0))
    9
    """
    twin = copy_of(model)
    found = find_kernels(twin, layers)
    put_masks(twin, {name: value_of(variable) != 0 for name, variable in found.items()})
    return twin


def find_kernels(model, layers=None) -> dict:
    """The variables of the kernels to prune, by the layer's name, in the model's order.

    Raises:
        TypeError, ValueError: what `layers` names is not there, has no kernel, or nothing is.
    """
    chosen = freeze_layers(layers)
    offered = {}
    for layer in _leaves(model):
        variable = _kernel(layer)
        if variable is None:
            continue
        if layer.name in offered:
            raise ValueError(
                f"`model` holds two layers called {layer.name!r}, and masks are kept by name. "
                "Give one of them another name."
            )
        offered[layer.name] = layer, variable
    if chosen is None:
        found = offered
    elif callable(chosen):
        found = {name: pair for name, pair in offered.items() if chosen(pair[0])}
    else:
        unknown = [name for name in chosen if name not in offered]
        if unknown:
            raise ValueError(
                f"`layers` names {unknown}, which are no layers to prune. These are: "
                f"{list(offered)}."
            )
        found = {name: pair for name, pair in offered.items() if name in chosen}
    if not found:
        raise ValueError(f"The model has no layer to prune. Layers offered: {list(offered)}.")
    return {name: variable for name, (_, variable) in found.items()}


def put_masks(model, masks: dict) -> None:
    """Sets the weights of `model` to zero where its `masks`, by layer, say so, and keeps them."""
    found = find_kernels(model, list(masks))
    for name, mask in masks.items():
        variable = found[name]
        if np.shape(mask) != tuple(variable.shape):
            raise ValueError(
                f"The mask of layer {name!r} has shape {np.shape(mask)}, its kernel "
                f"{tuple(variable.shape)}."
            )
        set_mask(variable, mask)


def set_mask(variable, mask) -> None:
    """A new mask of one kernel, from the next update on and on its weights now."""
    if isinstance(variable.constraint, Masked):
        variable.constraint.mask.assign(np.asarray(mask, "float32"))
    else:
        constrain(variable, Masked(variable, mask))
    variable.assign(np.where(mask, value_of(variable), 0.0))


def constrain(variable, constraint) -> None:
    """`constraint` for a variable that exists, past Keras, which asks when it is made."""
    # tf_keras puts a variable of mixed precision into another one, and a strategy one for each
    # replica into another, which asks the first of them.
    own = getattr(variable, "_variable", variable)
    for place in (own, *getattr(own, "values", ())):
        place._constraint = constraint


def masks_of(model) -> dict:
    """The bool masks that `model` trains with, by layer."""
    return {
        name: variable.constraint.mask.numpy() != 0
        for name, variable in find_kernels(model).items()
        if isinstance(variable.constraint, Masked)
    }


def value_of(variable) -> np.ndarray:
    """The numbers of a variable of either Keras."""
    return np.array(tf.convert_to_tensor(variable))


def copy_of(model):
    """A copy with its own weights, equal now, and no masks.

    Raises:
        TypeError: not a Keras model, or one of the other Keras.
        ValueError: a subclassed or unbuilt model, or a layer that cannot be rebuilt.
    """
    check_copied(model)
    twin = _from_config(model, model.get_config())
    give_weights(twin, model.get_weights())
    return twin


def fresh_copy(model, seed: int):
    """A copy with new weights, drawn by the model's own initialisers from `seed`.

    The seeds that initialisers hold themselves are replaced: they would draw the same again.
    What training would not set is kept: an adapted Normalization, layers that are frozen.
    """
    check_copied(model)
    draw = np.random.default_rng(seed)
    config = copy.deepcopy(model.get_config())
    _reseed(config, lambda: int(draw.integers(2**31)))
    twin = _from_config(model, config)
    for old, new in zip(_leaves(model), _leaves(twin), strict=True):
        if _given(old):
            give_weights(new, old.get_weights())
    return twin


def check_copied(model) -> None:
    """Raises unless `model` is a built Sequential or functional model of this Keras."""
    check_model(model)
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras model, got {type(model).__name__}.")
    functional = isinstance(model, keras.Sequential) or type(model).__name__ == "Functional"
    functional = functional or type(model) is keras.Model
    if not functional or not model.built:
        raise ValueError(
            f"`model` must be a built Sequential or functional model, got {type(model).__name__}, "
            f"built={model.built}. Build it as keras.Model(inputs, outputs)."
        )


def _from_config(model, config):
    twin = type(model).from_config(config)
    if not twin.built:
        twin.build(model.input_shape)
    return twin


def _reseed(value, seed, initializer=False) -> None:
    if isinstance(value, dict):
        inside = value.get("config")
        if isinstance(inside, dict) and "seed" in inside:
            if initializer:
                inside["seed"] = seed()
                return
            # These draw their start from a seed of their own.
            if str(value.get("class_name")).rpartition(">")[2] in _BINARY:
                inside["seed"] = seed()
        for key, item in value.items():
            _reseed(item, seed, str(key).endswith("initializer"))
    elif isinstance(value, (list, tuple)):
        for item in value:
            _reseed(item, seed)


def _given(layer) -> bool:
    """Whether `layer` has weights, and training sets none of them."""
    if not layer.weights:
        return False
    learns = type(layer).__name__ in _STATISTICS or isinstance(layer, LowRankVirtual)
    return not layer.trainable or not (learns or layer.trainable_weights)


def _leaves(model):
    return [layer for layer in model._flatten_layers() if not isinstance(layer, keras.Model)]


def _kernel(layer):
    if type(layer).__name__ not in KINDS or not layer.built:
        return None
    separable = type(layer).__name__.startswith("Separable")
    return layer.pointwise_kernel if separable else layer.kernel
