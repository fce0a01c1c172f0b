"""A regularizer that makes whole filters, channels or kernels vanish."""

import math
import numbers

import tensorflow as tf

from keras_robust._keras import keras
from keras_robust.layers._counterpart import PACKAGE

GROUPS = ("filters", "channels", "shapes", "depth")
# Inside the root, so that the gradient at a group of zeros is zero and not NaN.
_EPS = 1e-12


def group_norms(kernel, groups: str, eps: float = 0.0) -> tf.Tensor:
    """The Euclidean norm of each group of weights of a kernel, with the summed axes kept.

    Args:
        kernel: floating point `(..., channels, filters)`, at least two axes.
        groups: "filters", one for each output; "channels", one for each input; "shapes", one for
            each place and input, over all filters; "depth", the kernel as a whole.
        eps: added to the sum of squares.

    >>> group_norms(tf.constant([[3.0, 0.0], [4.0, 2.0]]), "filters").numpy()
    array([[5., 2.]], dtype=float32)
    """
    rank = len(kernel.shape)
    axes = {
        "filters": range(rank - 1),
        "channels": [axis for axis in range(rank) if axis != rank - 2],
        "shapes": [rank - 1],
        "depth": range(rank),
    }[groups]
    kernel = tf.convert_to_tensor(kernel)
    return tf.sqrt(tf.reduce_sum(tf.square(kernel), list(axes), keepdims=True) + eps)


class Lasso:
    """What `GroupLasso` is in either Keras; see there."""

    keras = None

    def __init__(self, weight=1e-3, groups="filters", scaled=False):
        if isinstance(weight, bool) or not isinstance(weight, numbers.Real):
            raise TypeError(f"`weight` must be a number >= 0, got {weight!r}.")
        if not 0 <= weight < math.inf:
            raise ValueError(f"`weight` must be a finite number >= 0, got {weight!r}.")
        names = (groups,) if isinstance(groups, str) else tuple(groups or ())
        if not names or any(name not in GROUPS for name in names):
            raise ValueError(f"`groups` must be one or several of {GROUPS}, got {groups!r}.")
        if not isinstance(scaled, bool):
            raise TypeError(f"`scaled` must be True or False, got {scaled!r}.")
        self.weight, self.groups, self.scaled = float(weight), names, scaled

    def __call__(self, x):
        _check_kernel(x)
        kernel = _as_float(x)
        sums = [
            self._weight(kernel, norms) * tf.reduce_sum(norms)
            for norms in (group_norms(kernel, groups, _EPS) for groups in self.groups)
        ]
        return tf.add_n(sums)

    def proximal(self, kernel, rate):
        """What the penalty alone makes of a kernel in a step of length `rate`.

        Each group `w` becomes `w max(0, 1 - rate weight / ||w||)`: exactly zero where its norm
        is at most `rate weight`. With several kinds of groups one step is made after the other.

        Args:
            kernel: float32 or float64 `(..., channels, filters)`.
            rate: step length, the learning rate of the step on the loss.

        Returns:
            A tensor like `kernel`.

        >>> kernel = tf.constant([[3.0, 0.3], [4.0, 0.4]])
        >>> GroupLasso(10.0).proximal(kernel, 0.1).numpy().round(3)
        array([[2.4, 0. ],
               [3.2, 0. ]], dtype=float32)
        """
        _check_kernel(kernel)
        kernel = tf.convert_to_tensor(kernel)
        rate = tf.cast(rate, kernel.dtype)
        for groups in self.groups:
            norms = group_norms(kernel, groups)
            shrunk = 1.0 - tf.math.divide_no_nan(rate * self._weight(kernel, norms), norms)
            kernel *= tf.maximum(shrunk, 0.0)
        return kernel

    def _weight(self, kernel, norms) -> float:
        """The weight of a group, times the root of its size if so wished."""
        size = math.prod(kernel.shape) / max(math.prod(norms.shape), 1)
        return self.weight * (math.sqrt(size) if self.scaled else 1.0)

    def get_config(self):
        return {"weight": self.weight, "groups": list(self.groups), "scaled": self.scaled}


@keras.saving.register_keras_serializable(PACKAGE)
class GroupLasso(Lasso, keras.regularizers.Regularizer):
    """A kernel regularizer under which whole groups of weights go to zero.

    The group lasso of structured sparsity learning, Wen et al. 2016,
    https://arxiv.org/abs/1608.03665: `weight` times the sum over groups of `||w||_2`. As a
    `kernel_regularizer` it makes groups small, but by gradient steps none becomes exactly
    zero. `kr.training.ProximalGroupLasso(GroupLasso(...))` does that, in place of the
    regularizer; `kr.compress.remove_dead` then takes the zeros out of the model.

    Args:
        weight: of the penalty in the loss, >= 0.
        groups: "filters", the weights into each output (last axis of the kernel); "channels",
            those from each input (last axis but one); "shapes", those from each input and place,
            over all filters; "depth", the whole kernel, for a layer that a shortcut goes round;
            or several of them. For a depthwise kernel take "channels".
        scaled: whether the weight of a group is multiplied by the root of its size.

    Raises:
        TypeError, ValueError: an argument out of its range; when called, a bias.

    >>> layer = keras.layers.Dense(3, kernel_regularizer=kr.layers.GroupLasso(0.01))
    >>> _ = layer(tf.ones([1, 4]))
    >>> len(layer.losses)
    1
    """

    keras = keras


def _check_kernel(kernel) -> None:
    shape = tuple(kernel.shape)
    if len(shape) < 2:
        raise ValueError(
            f"GroupLasso is for kernels of at least two axes, got shape {shape}. Give it as "
            "kernel_regularizer, not as bias_regularizer."
        )


def _as_float(kernel) -> tf.Tensor:
    kernel = tf.convert_to_tensor(kernel)
    return kernel if kernel.dtype == tf.float64 else tf.cast(kernel, tf.float32)
