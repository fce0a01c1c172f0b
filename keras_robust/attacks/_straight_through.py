"""A model whose rounding lets gradients through."""

import tensorflow as tf

from keras_robust._checks import check_logit_model
from keras_robust._keras import is_model

_IDENTITY = "KerasRobustStraightThrough"

# Operations that are flat almost everywhere, or, as fake quantization, outside a range.
_HIDING = (
    "Ceil",
    "FakeQuantWithMinMaxArgs",
    "FakeQuantWithMinMaxVars",
    "FakeQuantWithMinMaxVarsPerChannel",
    "Floor",
    "QuantizeAndDequantizeV4",
    "Rint",
    "Round",
    "Sign",
)


class StraightThrough:
    """A model with the same outputs, through whose rounding the gradient passes unchanged.

    Backward pass differentiable approximation of Athalye et al. 2018,
    https://arxiv.org/abs/1802.00420, with the identity for `tf.round`, `rint`, `floor`, `ceil`
    and `sign` and for fake quantization, whose own gradient is zero where it clips. Attacks
    that need a gradient find one in int8 twins and in models that hide behind rounding.

    What runs inside a `tf.function` of the model's own, a SavedModel or a TensorFlow loop or
    condition keeps its gradient.

    Attributes:
        model: as given; attacked and called as it is, with weights as they are then.

    Args:
        model: Keras model or TensorFlow callable `(batch, ...) -> (batch, classes)`.

    Raises:
        TypeError: not a callable, or a model of the other Keras.
        ValueError: a model that ends in a softmax.

    >>> steps = lambda x: tf.round(4.0 * x) @ tf.constant([[1.0, -1.0], [-1.0, 1.0]])
    >>> x = tf.constant([[0.75, 0.25]])
    >>> kr.attacks.FGSM(0.25)(StraightThrough(steps), x, [0]).numpy().tolist()
    [[0.5, 0.5]]
    """

    def __init__(self, model):
        check_logit_model(model)
        self.model = model
        self._function = _passing(model)

    def __call__(self, x) -> tf.Tensor:
        return self._function(tf.convert_to_tensor(x))


def _passing(model):
    # A function of the model, not of the wrapper: compiled attacks keep it alive, and must not
    # keep the wrapper that they are remembered by.
    @tf.function(reduce_retracing=True, autograph=False)
    def call(x):
        graph = tf.compat.v1.get_default_graph()
        with graph.gradient_override_map(dict.fromkeys(_HIDING, _IDENTITY)):
            return model(x, training=False) if is_model(model) else model(x)

    return call


@tf.RegisterGradient(_IDENTITY)
def _identity(operation, gradient):
    return [gradient] + [None] * (len(operation.inputs) - 1)
