"""Decoupled weight decay of the kernels alone."""

from keras_robust._keras import check_model, is_model


def decay_kernels_only(optimizer, model):
    """Keeps the optimizer's weight decay off biases and normalisation; returns the optimizer.

    The `weight_decay` of Keras optimizers is decoupled, `w <- w - learning_rate * weight_decay *
    w` (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101), and moves every trainable
    variable. In small networks a high one on the kernels acts as a simple form of adversarial
    training (Tanay and Griffin 2018, https://arxiv.org/abs/1806.11186); biases and the scales of
    normalisation do not turn the boundary. A kernel is a weight of two axes or more. This takes
    the place of what `exclude_from_weight_decay` was told before.

    Args:
        optimizer: Keras optimizer with a `weight_decay`, not yet used.
        model: built Keras model that it will train.

    Returns:
        `optimizer` itself, for `compile`.

    Raises:
        TypeError: not a Keras model, or one of the other Keras.
        ValueError: an optimizer without weight decay or already in use, or a model not built.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> optimizer = decay_kernels_only(keras.optimizers.AdamW(1e-3, weight_decay=0.1), model)
    """
    check_model(model)
    if not is_model(model):
        raise TypeError(f"`model` must be a Keras model, got {type(model).__name__}.")
    if not model.built:
        raise ValueError(f"`model` {model.name!r} is not built. Call it once, or model.build(...).")
    # Loss scaling wraps the optimizer that decays.
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if not getattr(inner, "weight_decay", None):
        raise ValueError(
            f"`optimizer` {type(inner).__name__} has no weight decay. Give it one, for instance "
            "keras.optimizers.AdamW(1e-3, weight_decay=0.01) or SGD(0.1, weight_decay=5e-4)."
        )
    if inner.variables and getattr(inner, "_built", getattr(inner, "built", False)):
        raise ValueError(
            "`optimizer` is in use already, and what it decays is settled at its first step. Make "
            "a new one."
        )
    inner.exclude_from_weight_decay(
        var_list=[weight for weight in model.trainable_variables if len(weight.shape) < 2]
    )
    return optimizer
