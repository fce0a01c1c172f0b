"""What a layer makes of inputs, as an array."""

import numpy as np

from keras_robust.analysis._activations import reader


def embeddings(model, layer, x, *, batch_size: int = 250) -> np.ndarray:
    """The output of `layer` for each input, flattened, in inference mode.

    Args:
        model: functional or built sequential Keras model.
        layer: name of one of its layers, or the layer.
        x: `(n, ...)` floating-point inputs of the model.
        batch_size: inputs at a time.

    Returns:
        float32 `(n, features)`; a map `(h, w, c)` has `h * w * c` features.

    Raises:
        TypeError, ValueError: wrong inputs, or no such layer.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.ReLU(name="relu")])
    >>> embeddings(model, "relu", np.array([[1.0, -1.0, 2.0, -2.0]])).tolist()
    [[1.0, 0.0, 2.0, 0.0]]
    """
    return np.concatenate(list(reader(model, layer)(x, batch_size)))
