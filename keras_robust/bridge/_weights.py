"""A layer's weights, given to its twin in the other Keras: by name and by shape."""

from keras_robust._weights import give_weights
from keras_robust.bridge._config import refuse

# Weights that the two name differently: tf_keras first.
SAME = {"depthwise_kernel": "kernel"}


def carry_weights(layer, twin) -> None:
    """Gives the weights of `layer` to `twin`, in order; nothing is ever transposed.

    Raises:
        ValueError: another number of weights, or one of another name or shape.
    """
    mine, theirs = list(layer.weights), list(twin.weights)
    if len(mine) != len(theirs):
        raise refuse(layer, f"it has {len(mine)} weights, its twin {len(theirs)}")
    plain = _unique(mine) and _unique(theirs)
    for old, new in zip(mine, theirs, strict=True):
        if tuple(old.shape) != tuple(new.shape):
            raise refuse(
                layer,
                f"its weight {_name(old)!r} has shape {tuple(old.shape)}, that of its twin "
                f"{tuple(new.shape)}",
            )
        if plain and not _same(layer, _name(old), _name(new)):
            raise refuse(
                layer, f"its weight {_name(old)!r} stands where its twin has {_name(new)!r}"
            )
    if mine:
        give_weights(twin, layer.get_weights())


def _same(layer, one: str, other: str) -> bool:
    if one == other:
        return True
    # Only a depthwise layer has one kernel of two names.
    return type(layer).__name__.startswith("Depthwise") and "kernel" in (
        SAME.get(one, one),
        SAME.get(other, other),
    )


def _name(weight) -> str:
    return weight.name.rpartition("/")[2].partition(":")[0]


def _unique(weights) -> bool:
    names = [_name(weight) for weight in weights]
    return len(set(names)) == len(names)
