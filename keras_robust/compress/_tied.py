"""Kernels that keep their zeros, and their few values, in a stage that does not treat them.

As masks do, by a constraint of the kernel's variable (see `_masks`), so that a layer which
`Cluster` or `Quantize` leaves alone trains on and still is what earlier stages made of it.
"""

import numpy as np
import tensorflow as tf

from keras_robust.compress._kernels import variables_of
from keras_robust.compress._masks import Masked, constrain, value_of

# What TF-MOT's quantizers that keep zeros, and clusters, add to their variables.
_KEPT_BY_TFMOT = {"sparsity_mask", "ori_weights_vars_tf"}


class Tied:
    """The constraint: weights that are equal now stay equal, each the mean of what they became.

    For SGD this moves a value by the mean gradient of its weights. Zero stays zero.
    """

    def __init__(self, variable):
        values, places = np.unique(value_of(variable), return_inverse=True)
        self.own = variable.constraint
        self.places = places.reshape(-1).astype("int32")
        self.alive = (values != 0).astype("float32")

    def __call__(self, weights):
        weights = tf.convert_to_tensor(weights if self.own is None else self.own(weights))
        flat, count = tf.reshape(weights, [-1]), len(self.alive)
        means = tf.math.unsorted_segment_mean(flat, self.places, count)
        means *= tf.cast(self.alive, weights.dtype)
        return tf.reshape(tf.gather(means, self.places), weights.shape)


def keep_kernels(layers, sparse: bool, clusters: int | None = None) -> None:
    """Makes the kernels of plain `layers` keep what they have, whoever trains them.

    Args:
        layers: built layers.
        sparse: zeros stay zero.
        clusters: a kernel of at most so many values stays of so many; None for none.
    """
    for variable in (own for layer in layers for own in variables_of(layer).values()):
        _keep(variable, sparse, clusters)


def keep_rounded(wrapped, sparse: bool, clusters: int | None) -> None:
    """As `keep_kernels`, for the kernels of a fake-quantized model that TF-MOT lets go.

    It has quantizers that keep zeros and clusters for Conv2D and Dense, but none for depthwise
    and transposed convolutions.
    """
    for wrapper in wrapped.layers:
        for variable, _, state in getattr(wrapper, "_weight_vars", ()):
            if not state.keys() & _KEPT_BY_TFMOT:
                _keep(variable, sparse, clusters)


def _keep(variable, sparse, clusters) -> None:
    if not _tie(variable, clusters) and sparse and np.any(value_of(variable) == 0):
        constrain(variable, Masked(variable, value_of(variable) != 0))


def _tie(variable, clusters: int | None) -> bool:
    """Whether the values of `variable` are few enough to be kept; if so, they will be."""
    values = value_of(variable)
    distinct = np.unique(values).size
    few = clusters is not None and distinct <= clusters and distinct < values.size
    if few:
        constrain(variable, Tied(variable))
    return few
