"""The weights of one layer or model given to another."""


def give_weights(target, values) -> None:
    """Sets the weights of `target`, a layer or model of either Keras, and what it makes of them.

    An adapted Normalization computes with numbers that it makes of its weights once, which
    `set_weights` alone leaves as they were.

    Args:
        target: a layer or model.
        values: arrays, as `get_weights` returns them.
    """
    target.set_weights(values)
    settle(target)


def settle(target) -> None:
    """Lets `target` make anew what it makes of its weights; call it when they were assigned."""
    for layer in target._flatten_layers():
        if type(layer).__name__ == "Normalization":
            layer.finalize_state()
