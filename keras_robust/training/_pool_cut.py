"""A network cut at a layer's output: the part below it, and the part above."""

import typing

from keras_robust._keras import keras

INPUT = "input"


class Cut(typing.NamedTuple):
    """Two models that share their layers with the one that was cut.

    Attributes:
        name: of the layer whose output is the cut, or "input".
        shape: of a row of that output.
        below: from the inputs to the cut; None at the input.
        above: from the cut to the logits.
    """

    name: str
    shape: tuple[int, ...]
    below: typing.Any
    above: typing.Any


def cut_at(model, names=None) -> list[Cut]:
    """`model` cut at the outputs of some layers.

    Args:
        model: functional or built sequential Keras model with one input.
        names: of layers, or "input". None: the input, and what each other layer that has a
            kernel gets, as far as nothing goes around it.

    Returns:
        A `Cut` for each name, from the input up.

    Raises:
        ValueError: a model without a graph of layers, no layer of that name, or one at whose
            output the model cannot be cut.
    """
    if len(getattr(model, "inputs", None) or ()) != 1:
        raise ValueError(
            f"`model` {model.name!r} cannot be cut at a layer: it is subclassed, not built, or has "
            "several inputs. Build it with the functional API, or as a Sequential that starts "
            "with an Input."
        )
    if names is None:
        found = {name: _cut(model, name) for name in _feeding_kernels(model)}
        cuts = [cut for cut in found.values() if cut is not None]
    else:
        cuts = [_named(model, name) for name in dict.fromkeys(names)]
    order = [INPUT, *(layer.name for layer in model.layers)]
    return sorted(cuts, key=lambda cut: order.index(cut.name))


def _named(model, name) -> Cut:
    own = [layer.name for layer in model.layers]
    if name != INPUT and name not in own:
        raise ValueError(
            f"`layers` names {name!r}, which is no layer of model {model.name!r}. It has "
            f"{', '.join(map(repr, own))}; 'input' is the input."
        )
    cut = _cut(model, name)
    if cut is None:
        raise ValueError(
            f"`layers` names {name!r}, but the model {model.name!r} cannot be cut there: something "
            "goes around that layer, nothing is above it, or it is called several times or has "
            "several outputs. Name one that all goes through."
        )
    return cut


def _cut(model, name) -> Cut | None:
    """None where the model cannot be cut."""
    if name == INPUT:
        return Cut(INPUT, tuple(model.inputs[0].shape[1:]), None, model)
    try:
        output = model.get_layer(name).output
        if output is model.outputs[0] or None in tuple(output.shape[1:]):
            return None
        below = keras.Model(model.inputs[0], output, name=f"{model.name}_to_{name}")
        above = keras.Model(output, model.outputs[0], name=f"{model.name}_from_{name}")
    except (AttributeError, ValueError, KeyError):  # Keras: no single output, or a loose end.
        return None
    if model.inputs[0]._keras_history[0] in above.layers:  # Keras 3.12 leaves the end loose.
        return None
    return Cut(name, tuple(output.shape[1:]), below, above)


def _feeding_kernels(model) -> list[str]:
    """Names of the layers whose output a layer with a kernel gets; "input" for the first."""
    fed = [
        layer for layer in model.layers if any(len(w.shape) > 1 for w in layer.trainable_weights)
    ]
    names = [INPUT]
    for layer in fed[1:]:
        source = layer.input
        if not isinstance(source, (list, tuple, dict)):
            below = source._keras_history[0]
            names.append(INPUT if isinstance(below, keras.layers.InputLayer) else below.name)
    return list(dict.fromkeys(names))
