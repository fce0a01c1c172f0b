"""A dense layer whose kernel is a product of two thin ones, trained from scratch."""

import tensorflow as tf

from keras_robust._keras import keras
from keras_robust.layers._counterpart import PACKAGE
from keras_robust.layers._low_rank import Factorized, check_whole


class DenseBody(Factorized):
    """What `LowRankDense` is in either Keras; see there."""

    def __init__(
        self,
        units,
        rank,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_whole("units", units)
        self.units = int(units)
        self.set_arguments(
            rank, activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer,
            bias_regularizer, kernel_constraint, bias_constraint,
        )  # fmt: skip

    def build(self, input_shape):
        inputs = tuple(input_shape)[-1]
        if inputs is None:
            raise ValueError(
                f"Layer {self.name!r} needs to know its number of inputs, got an input of shape "
                f"{tuple(input_shape)}. Give keras.Input a full shape."
            )
        self.add_factors((), int(inputs), self.units)

    def call(self, inputs):
        narrow = tf.linalg.matmul(inputs, tf.cast(self.kernel_in, inputs.dtype))
        return self.finish(tf.linalg.matmul(narrow, tf.cast(self.kernel_out, inputs.dtype)))

    def compute_output_shape(self, input_shape):
        return (*tuple(input_shape)[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units, **self.common_config()}


@keras.saving.register_keras_serializable(PACKAGE)
class LowRankDense(DenseBody, keras.layers.Layer):
    """A dense layer `activation(x U V + bias)` with U `(inputs, rank)` and V `(rank, units)`.

    It holds rank (inputs + units) weights instead of inputs units, and is smaller than a Dense
    layer where rank < inputs units / (inputs + units). This restricts the weights, whereas
    `LowRankVirtual` restricts the activations. `kr.compress.Factorize` makes such pairs out of
    trained layers. Factors tend to become ill-conditioned, and the network less robust:
    `kernel_regularizer=kr.layers.ConditionPenalty(...)` works against that.

    Args:
        units: number of outputs.
        rank: of the kernel, 1 <= rank <= min(inputs, units).
        activation, use_bias: as for Dense.
        kernel_initializer: "glorot_uniform", "he_normal" or another VarianceScaling: the product
            U V starts with that variance, and with all its singular values equal.
        bias_initializer, bias_regularizer, bias_constraint: as for Dense.
        kernel_regularizer, kernel_constraint: of each of the two factors.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras layer.

    Raises:
        ValueError: an argument out of its range; when built, a rank above the smaller side.

    >>> layer = kr.layers.LowRankDense(units=100, rank=5)
    >>> layer(tf.ones([2, 50])).shape, layer.count_params()
    (TensorShape([2, 100]), 850)
    """

    keras = keras
