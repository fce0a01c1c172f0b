"""BatchNormalization's statistics, measured anew for weights other than those trained with."""

import tensorflow as tf

from keras_robust._keras import keras


def check_batch_norm(dataset) -> None:
    """Raises ValueError unless the argument `batch_norm` is a `tf.data.Dataset` or None."""
    if dataset is not None and not isinstance(dataset, tf.data.Dataset):
        raise ValueError(
            "`batch_norm` must be a tf.data.Dataset of batches of inputs, got "
            f"{type(dataset).__name__}."
        )


def measure_batch_norm(model, dataset) -> None:
    """Sets the moving statistics of `model` to their plain mean over the batches of `dataset`.

    Args:
        model: its other variables are left as they are.
        dataset: `tf.data.Dataset` of inputs, or of `(inputs, ...)`.
    """
    kind = keras.layers.BatchNormalization
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, kind)]
    momenta = [layer.momentum for layer in norms]
    statistics = {id(v) for layer in norms for v in layer.non_trainable_variables}
    # The passes draw random numbers for dropout, and training must not notice.
    others = [v for v in model.non_trainable_variables if id(v) not in statistics]
    kept = [tf.convert_to_tensor(variable) for variable in others]
    try:
        for number, batch in enumerate(dataset):
            for layer in norms:
                layer.momentum = number / (number + 1.0)
            model(batch[0] if isinstance(batch, tuple) else batch, training=True)
    finally:
        for layer, momentum in zip(norms, momenta):
            layer.momentum = momentum
        for variable, value in zip(others, kept):
            variable.assign(value)
