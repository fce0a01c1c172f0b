"""Weights of two values over real ones that are trained: what the binary layers share."""

import contextlib
import math
import numbers
import zlib

import tensorflow as tf

from keras_robust._keras import keras
from keras_robust._seed import as_seed, fold, uniform
from keras_robust.layers._state import add_state, constraint

TEST_WEIGHTS = ("binary", "real", "sampled")
# Numbers of draws that training, which counts from 0, never takes.
_FIXED, _START = -1, -2


def binarise(latent, draws=None) -> tf.Tensor:
    """+1 or -1 for each weight, never 0: its sign, or drawn with the hard sigmoid of it.

    Courbariaux, Bengio and David 2015, https://arxiv.org/abs/1511.00363, eq. 1 to 3.

    Args:
        latent: real weights in [-1, 1], any shape.
        draws: uniform numbers in (0, 1) of that shape, a weight w being +1 where they lie below
            (w + 1) / 2; None for the sign, +1 at 0.

    Returns:
        As `latent`.

    >>> binarise(tf.constant([-0.3, 0.0, 0.3])).numpy().tolist()
    [-1.0, 1.0, 1.0]
    """
    latent = tf.convert_to_tensor(latent)
    if draws is None:
        up = latent >= 0
    else:
        up = tf.cast(draws, latent.dtype) < (latent + 1.0) / 2.0
    one = tf.ones([], latent.dtype)
    return tf.where(up, one, -one)


def glorot(fan_in: int, fan_out: int) -> float:
    """Glorot's bound as the authors take it, sqrt(1.5 / (fan_in + fan_out)).

    >>> round(glorot(784, 716), 6)
    0.031623
    """
    return math.sqrt(1.5 / (fan_in + fan_out))


class Binary:
    """What the three layers are in either Keras. `keras` is the one it belongs to.

    The variable holds V = W g, where W is the paper's real weight in [-H, H] and 1 / g its
    learning rate scale; so the gradient reaches V as dC/dW_b / g, which is the chain rule.
    """

    keras = None

    def __init__(
        self,
        activation=None,
        use_bias=True,
        stochastic=False,
        test_weights="binary",
        scale=1.0,
        learning_rate_scale="glorot",
        bias_initializer="zeros",
        seed=0,
        **kwargs,
    ):
        if test_weights not in TEST_WEIGHTS:
            raise ValueError(f"`test_weights` must be one of {TEST_WEIGHTS}, got {test_weights!r}.")
        for name, value in (("use_bias", use_bias), ("stochastic", stochastic)):
            if not isinstance(value, bool):
                raise ValueError(f"`{name}` must be True or False, got {value!r}.")
        _check_scale("scale", scale)
        _check_scale("learning_rate_scale", learning_rate_scale)
        if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
            raise ValueError(f"`seed` must be an int, got {seed!r}.")
        super().__init__(**kwargs)
        self.activation = self.keras.activations.get(activation)
        self.use_bias = use_bias
        self.stochastic = stochastic
        self.test_weights = test_weights
        self.scale = scale
        self.learning_rate_scale = learning_rate_scale
        self.bias_initializer = self.keras.initializers.get(bias_initializer)
        self.seed = int(seed)
        # Its place in the model: two layers of one seed must not draw alike.
        self._place = zlib.crc32(self.name.encode()) & 0x7FFFFFFF

    def build(self, input_shape):
        channels = _channels(self, input_shape)
        self.magnitude, self.slope = self.scales(channels)
        self.limit = self.magnitude / self.slope
        shape, _, _, outputs = self._shapes(channels)
        dtype = "float64" if self.dtype_policy.variable_dtype == "float64" else "float32"

        def start(shape, dtype=None):
            shares = uniform(shape, self._seed(_START), -1.0, 1.0)
            return self.limit * tf.cast(shares, dtype or "float32")

        # A sum of small steps: never in half precision, whatever the policy.
        whole = "autocast" if self.keras.__name__ != "tf_keras" else "experimental_autocast"
        self.latent = self.add_weight(
            name="latent",
            shape=shape,
            dtype=dtype,
            initializer=start,
            constraint=constraint(self.keras, self._clip),
            **{whole: False},
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(outputs,), initializer=self.bias_initializer
            )
        self._count = add_state(self, "count", (), dtype="int64") if self.stochastic else None
        self.built = True

    def scales(self, channels: int) -> tuple[float, float]:
        """H and 1 / g for inputs of so many channels."""
        _, fan_in, fan_out, _ = self._shapes(channels)
        bound = glorot(fan_in, fan_out)
        rate = self.learning_rate_scale
        return (
            bound if self.scale == "glorot" else float(self.scale),
            1.0 / bound if rate == "glorot" else float(rate),
        )

    def call(self, inputs, training=None):
        kernel = tf.cast(self._kernel(training), inputs.dtype)
        outputs = self._apply(inputs, kernel)
        if self.bias is not None:
            outputs = outputs + tf.cast(tf.convert_to_tensor(self.bias), outputs.dtype)
        return self.activation(outputs)

    @property
    def kernel(self):
        """The weights of inference, by `test_weights`; in the shape of the plain layer's kernel."""
        return self.weights_as(self.test_weights)

    @property
    def real(self):
        """W, the real weights in [-H, H]."""
        return self.slope * tf.convert_to_tensor(self.latent)

    def weights_as(self, kind: str, seed=None):
        """The kernel that `test_weights=kind` stands for; "sampled" by `seed` if there is one."""
        if kind not in TEST_WEIGHTS:
            raise ValueError(f"`kind` must be one of {TEST_WEIGHTS}, got {kind!r}.")
        if kind == "real":
            return self.real
        return self._two_valued(self._draws(_FIXED, seed) if kind == "sampled" else None)

    @contextlib.contextmanager
    def resolve_once(self):
        """One draw for all calls inside, also those in inference, as in one step of training."""
        if not self.trainable:
            yield
            return
        with self._drawn(self._next_draws()):
            yield

    @contextlib.contextmanager
    def sampled(self, seed):
        """Inside, one network that `seed` draws with the chances that the real weights give."""
        with self._drawn(self._draws(_FIXED, seed)):
            yield

    @contextlib.contextmanager
    def _drawn(self, draws):
        resolved = draws, tf.stop_gradient(self._two_valued(draws))
        # Past Keras, which would track the tensors of a graph as if they were state.
        object.__setattr__(self, "_resolved", resolved)
        try:
            yield
        finally:
            object.__setattr__(self, "_resolved", None)

    @tf.autograph.experimental.do_not_convert
    def _kernel(self, training):
        resolved = getattr(self, "_resolved", None)
        if resolved is not None:
            draws, kernel = resolved
            # Only a plain False is inference for sure. In training an objective may have moved
            # the real weights since, as AWP does.
            inference = isinstance(training, (bool, int)) and not training
            return self._straight(kernel if inference else self._two_valued(draws))
        if tf.is_tensor(training):
            chosen = tf.cast(training, tf.bool)
            return tf.cond(chosen, lambda: self._kernel(True), lambda: self._kernel(False))
        if training and self.trainable:
            return self._straight(self._two_valued(self._next_draws()))
        return self.real if self.test_weights == "real" else self._straight(self.kernel)

    def _two_valued(self, draws):
        """+H or -H for each weight."""
        return self.magnitude * binarise(tf.convert_to_tensor(self.latent) / self.limit, draws)

    def _straight(self, kernel):
        """`kernel`, whose gradient goes to the real weights as it is, also beyond the clip."""

        @tf.custom_gradient
        def estimate(latent):
            return tf.identity(kernel), lambda upstream: self.slope * upstream

        return estimate(tf.convert_to_tensor(self.latent))

    def _next_draws(self):
        """The draws of the coming step of training; the next call gives those after it."""
        if not self.stochastic:
            return None
        count = tf.convert_to_tensor(self._count)
        draws = self._draws(count)
        # None where a model is assembled in a strategy's scope.
        if tf.distribute.get_replica_context() is not None:
            self._count.assign(count + 1)
        return draws

    def _draws(self, number, seed=None):
        return uniform(self.latent.shape, self._seed(number, seed))

    def _seed(self, number, seed=None):
        """The same in all replicas: they must compute with the same weights."""
        seed = as_seed(self.seed if seed is None else seed)
        return fold(fold(seed, self._place), number)

    def _clip(self, latent):
        return tf.clip_by_value(tf.convert_to_tensor(latent), -self.limit, self.limit)

    def get_config(self):
        own = "use_bias stochastic test_weights scale learning_rate_scale seed"
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in own.split()},
            "activation": self.keras.activations.serialize(self.activation),
            "bias_initializer": self.keras.initializers.serialize(self.bias_initializer),
        }


def binary_layers(model) -> list:
    """The binary layers in a model, also those inside nested models and wrappers."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, Binary)]


def sampled_logits(model, x, samples: int = 10, seed=0) -> tf.Tensor:
    """Mean of the logits of networks drawn from the real weights: an ensemble in one file.

    Each network has the weights that a step of stochastic training might have had. Made of
    TensorFlow operations, so that an attack can climb it:
    `attack(lambda x: kr.layers.sampled_logits(model, x), x, y)`.

    Args:
        model: a Keras model with binary layers, `(batch, ...)` to logits `(batch, classes)`.
        x: `(batch, ...)`.
        samples: number of networks, >= 1.
        seed: int, or an integer tensor of shape (2,); the networks follow from it.

    Returns:
        float32 (float64 for logits of that type) `(batch, classes)`.

    Raises:
        TypeError: not a Keras model.
        ValueError: a model without binary layers, `samples` below 1.

    >>> model = keras.Sequential([keras.Input((4,)), kr.layers.BinaryDense(3, name="logits")])
    >>> sampled_logits(model, tf.ones([2, 4]), samples=4).shape
    TensorShape([2, 3])
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras model, got {type(model).__name__}.")
    layers = binary_layers(model)
    if not layers:
        raise ValueError(
            f"`model` {model.name!r} has no binary layer to sample. Make some with "
            "kr.compress.binarize(model)."
        )
    if isinstance(samples, bool) or not isinstance(samples, numbers.Integral) or samples < 1:
        raise ValueError(f"`samples` must be a whole number >= 1, got {samples!r}.")
    seed, total = as_seed(seed), 0.0
    for number in range(samples):
        with contextlib.ExitStack() as stack:
            for layer in layers:
                stack.enter_context(layer.sampled(fold(seed, number)))
            logits = tf.convert_to_tensor(model(x, training=False))
        total += logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32)
    return total / samples


def _channels(layer, input_shape) -> int:
    shape = tuple(input_shape)
    if len(shape) != layer.input_rank and (layer.input_rank or len(shape) < 2):
        wanted = layer.input_rank or "at least 2"
        raise ValueError(
            f"Layer {layer.name!r} takes inputs of {wanted} axes, the channels last, got shape "
            f"{shape}."
        )
    if shape[-1] is None:
        raise ValueError(
            f"Layer {layer.name!r} needs to know the last axis of its input, got shape {shape}. "
            "Give keras.Input a full shape."
        )
    return int(shape[-1])


def _check_scale(name, value):
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if value != "glorot" and not (number and 0 < value < math.inf):
        raise ValueError(f'`{name}` must be "glorot" or a number > 0, got {value!r}.')
