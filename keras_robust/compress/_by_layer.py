"""A setting of a stage that is one value, or a dict with a value for each layer by its name."""

from collections.abc import Callable, Mapping

from keras_robust.compress._stage import freeze_layers


def settle_by_layer(stage, argument: str, check: Callable) -> None:
    """Checks `argument` and `layers` of a frozen stage, and keeps them as values to hash.

    A dict is kept as pairs, and its names as `layers`.

    Args:
        stage: a frozen dataclass with `layers` and a field called `argument`.
        argument: the field's name.
        check: (name for the error, value) -> value to keep; raises where it is wrong.

    Raises:
        ValueError, TypeError: an empty dict, a name that is no string, a value that `check`
            refuses, `layers` beside a dict, and as by `freeze_layers`.
    """
    layers, setting = freeze_layers(stage.layers), getattr(stage, argument)
    if isinstance(setting, (Mapping, tuple)):
        each = _pairs(argument, setting)
        setting = tuple((name, check(f"{argument}[{name!r}]", one)) for name, one in each.items())
        if layers not in (None, tuple(each)):
            raise ValueError(
                f"`layers` must be left out where `{argument}` names the layers, got {layers!r}."
            )
        layers = tuple(each)
    else:
        setting = check(argument, setting)
    object.__setattr__(stage, "layers", layers)
    object.__setattr__(stage, argument, setting)


def value_for(setting, layer: str):
    """What a settled setting is for the layer of that name."""
    return dict(setting)[layer] if isinstance(setting, tuple) else setting


def values_of(setting) -> list:
    """All the values of a settled setting."""
    return [value for _, value in setting] if isinstance(setting, tuple) else [setting]


def _pairs(argument: str, setting) -> dict:
    try:
        each = dict(setting)  # Pairs are what `dataclasses.replace` hands on.
    except (TypeError, ValueError):
        each = {None: setting}
    if not each:
        raise ValueError(f"`{argument}` is an empty dict. Name a layer, or give one number.")
    if not all(isinstance(name, str) for name in each):
        raise TypeError(
            f"`{argument}` must be one number, or a dict from the names of layers to numbers, "
            f"got {setting!r}."
        )
    return each
