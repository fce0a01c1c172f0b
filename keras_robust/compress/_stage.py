"""What the three stages have in common: the layers they take, and what a run tells them."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_robust._keras import keras
from keras_robust._weights import give_weights
from keras_robust.layers import LowRankConv2D, LowRankDense


class Context(NamedTuple):
    """What a stage may know about the run it is part of.

    `epochs` and `steps` (training steps an epoch) set its schedule, `batches` is a finite
    dataset of inputs to calibrate on, `sparse` and `clusters` say what earlier stages did.
    """

    epochs: int
    steps: int
    batches: tf.data.Dataset | None = None
    sparse: bool = False
    clusters: int | None = None
    seed: int = 0


def freeze_layers(layers):
    """`layers` as a hashable value: None, a tuple of names, or a predicate.

    Raises:
        TypeError: a single string or something else.
        ValueError: an empty sequence.
    """
    if layers is None or callable(layers):
        return layers
    if isinstance(layers, str) or not all(isinstance(name, str) for name in layers):
        raise TypeError(
            "`layers` must be a sequence of layer names, a function layer -> bool, or None, "
            f"got {layers!r}. Write layers=['conv2d', 'dense']."
        )
    names = tuple(layers)
    if not names:
        raise ValueError("`layers` is empty. Leave it out to take every layer.")
    return names


def select(model, layers, default: Callable, possible: Callable, verb: str) -> list[str]:
    """The names of the layers of a flat model that a stage works on.

    Args:
        model: a flat model.
        layers: what the user gave, see `freeze_layers`.
        default: layer -> bool, what is taken when the user gave nothing.
        possible: layer -> bool, what TF-MOT can do at all.
        verb: "prune" or "cluster", for the errors.

    Raises:
        ValueError: an unknown name, a layer that TF-MOT cannot treat, or no layer at all.
    """
    offered = [layer.name for layer in model.layers if possible(layer)]
    if layers is None:
        chosen = [layer for layer in model.layers if default(layer)]
    elif callable(layers):
        chosen = [layer for layer in model.layers if possible(layer) and layers(layer)]
    else:
        known = {layer.name: layer for layer in model.layers}
        unknown = [name for name in layers if name not in known]
        if unknown:
            raise ValueError(
                f"`layers` names {unknown}, which the model does not have. "
                f"Layers to {verb}: {offered}."
            )
        refused = [name for name in layers if name not in offered]
        if refused:
            kinds = {name: type(known[name]).__name__ for name in refused}
            raise ValueError(
                f"`layers` names {kinds}, whose weights TF-MOT cannot {verb}. "
                f"Layers to {verb}: {offered}."
            )
        chosen = [known[name] for name in layers]
    if not chosen:
        raise ValueError(f"The model has no layer to {verb}. Layers TF-MOT offers: {offered}.")
    return [layer.name for layer in chosen]


def factored(model) -> list:
    """The layers of a model, and of those inside it, whose kernel is a product of two."""
    kinds = (LowRankConv2D, LowRankDense)
    return [layer for layer in model._flatten_layers() if isinstance(layer, kinds)]


def check_factored(model, layers, what: str, verb: str) -> None:
    """Raises `ValueError` where `layers`, see `freeze_layers`, takes in what `factored` finds.

    Named ones are refused where names are looked up.
    """
    if isinstance(layers, tuple):
        return
    found = [own for own in factored(model) if layers is None or layers(own)]
    if found:
        kinds = {own.name: type(own).__name__ for own in found}
        raise ValueError(
            f"The model has layers {kinds} with weights that {what} cannot {verb}, and would leave "
            "dense. Replace them (Dense and Conv2D can, also the pairs that kr.compress.Factorize "
            f"makes of these), or leave them out: layers=lambda layer: layer.name not in "
            f"{list(kinds)}."
        )


def check_precision(model, what: str) -> None:
    """Raises `ValueError` unless the flat `model` and the global policy are float32."""
    # TF-MOT's own layers are made under the global policy, whatever the model's is.
    policies = {"the global policy": keras.mixed_precision.global_policy()}
    policies.update({f"the layer {layer.name!r}": layer.dtype_policy for layer in model.layers})
    for where, policy in policies.items():
        if policy.compute_dtype != "float32" or policy.variable_dtype != "float32":
            raise ValueError(
                f"{what} works in float32 only, but {where} has the dtype policy "
                f"{policy.name!r}, which TF-MOT fails on. Set "
                "keras.mixed_precision.set_global_policy('float32') and build the model again "
                "for this stage."
            )


def replace_layers(model, make: Callable):
    """A functional model in which `make(layer)` stands for each layer of `model`.

    The layers that `make` returns unchanged are shared with `model`.
    """
    return keras.models.clone_model(model, clone_function=make)


def copy_by_name(layers: dict, target) -> None:
    """Gives the layers of `target` the weights of the layers of the same name."""
    for layer in target.layers:
        if layer.weights:
            give_weights(layer, layers[layer.name].get_weights())
