"""Which layers of a model stay float while the others are trained to int8."""

from keras_robust._keras import keras
from keras_robust.compress._treatment import check_called_once, passes_on, treatment_of
from keras_robust.layers import LowRankVirtual

# Without weights, and computed by the operation before them where that can be.
_ACTIVATIONS = ("ReLU", "Activation", "LeakyReLU", "ELU", "ThresholdedReLU", "Softmax")
# What scales an input for them alone.
_SCALES = ("Rescaling", "Normalization")


def check_names(names) -> tuple[str, ...]:
    """`float_layers` as a tuple.

    Raises:
        TypeError: a single string, or something else than names.
    """
    if isinstance(names, str):
        raise TypeError(f"`float_layers` must be a sequence of names, write [{names!r}].")
    names = () if names is None else tuple(names)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"`float_layers` must be a sequence of names such as ['logits'], got {list(names)!r}."
        )
    return names


def layers_to_round(model, names) -> list[str]:
    """The names of the layers with weights that remain when those called `names` stay float.

    Raises:
        ValueError: the flat `model` has no such layers, or none remains.
    """
    offered = [layer.name for layer in model.layers if _has_kernel(layer)]
    wrong = [name for name in names if name not in offered]
    if wrong:
        raise ValueError(
            f"`float_layers` names {wrong}, which are no layers with weights to leave in float. "
            f"These are: {offered}. What follows one, such as BatchNormalization and ReLU, stays "
            "with it."
        )
    rounded = [name for name in offered if name not in names]
    if names and not rounded:
        raise ValueError(
            "`float_layers` names every layer with weights, so that nothing would be int8. Leave "
            "Quantize out instead."
        )
    return rounded


def treatments(model, names) -> dict:
    """How each layer is quantized, by name, as by `treatment_of`, with layers `names` in float.

    A layer left in float keeps its BatchNormalization and activation with it, and rounds what
    it gives to int8 layers, and to these alone.
    """
    floats = _region(model, names)
    found = {}
    for layer in model.layers:
        if layer.name not in floats:
            found[layer.name] = treatment_of(layer)
            continue
        check_called_once(layer)
        found[layer.name] = "output" if _feeds_int8(layer, floats) else "nothing"
    return found


def rounds_input(model, names) -> bool:
    """Whether the input of the flat `model` goes to int8 layers."""
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.InputLayer))
    return not names or _feeds_int8(first, _region(model, names))


def _feeds_int8(layer, floats) -> bool:
    """Whether what `layer` gives reaches a layer that is not in `floats`, names.

    Layers that pass numbers on unchanged are looked through.
    """
    for node in layer.outbound_nodes:
        consumer = node.layer
        if consumer.name not in floats and (
            not passes_on(consumer) or _feeds_int8(consumer, floats)
        ):
            return True
    return False


def _region(model, names) -> set:
    """`names`, and those of the layers that go with them."""
    floats = set(names)
    for layer in model.layers:  # In the order of the calls.
        before = layer.inbound_nodes[0].inbound_layers if layer.inbound_nodes else []
        if (
            not isinstance(before, list)
            and before.name in floats
            and len(before.outbound_nodes) == 1
            and type(layer).__name__ in ("BatchNormalization", *_ACTIVATIONS)
        ):
            floats.add(layer.name)
    for layer in reversed(model.layers):
        consumers = [node.layer.name for node in layer.outbound_nodes]
        if type(layer).__name__ in _SCALES and consumers and set(consumers) <= floats:
            floats.add(layer.name)
    return floats


def _has_kernel(layer) -> bool:
    layers = keras.layers
    skipped = (layers.BatchNormalization, layers.Normalization, LowRankVirtual)
    return bool(layer.weights) and not isinstance(layer, skipped)
