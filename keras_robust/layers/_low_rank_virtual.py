"""A layer that is not there: it pulls the activations it sees towards few dimensions."""

import math
import numbers

import numpy as np
import tensorflow as tf

from keras_robust._keras import keras
from keras_robust._seed import as_seed, fold
from keras_robust.layers._counterpart import PACKAGE
from keras_robust.layers._learning import residual, statistics, step
from keras_robust.layers._projection import ensemble, exact, nystrom
from keras_robust.layers._state import add_state, keep_losses_apart, mean_if_any

METHODS = ("auto", "svd", "nystrom", "ensemble", "factored")
# Where the next method becomes the faster one, and where W stops fitting: benchmarks/low_rank.py.
SVD_LIMIT = 256
DENSE_LIMIT = 2048


class Virtual:
    """What `LowRankVirtual` is in either Keras; see there. `keras` is the one it belongs to."""

    keras = None

    def __init__(
        self,
        rank,
        projection_weight=1.0,
        norm_weight=1.0,
        every=10,
        method="auto",
        columns=None,
        draws=5,
        learning_rate=0.5,
        bias_learning_rate=0.25,
        seed=0,
        **kwargs,
    ):
        _check_whole("rank", rank)
        _check_whole("every", every)
        _check_whole("draws", draws)
        _check_weight("projection_weight", projection_weight)
        _check_weight("norm_weight", norm_weight)
        _check_rate("learning_rate", learning_rate)
        _check_rate("bias_learning_rate", bias_learning_rate)
        if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
            raise ValueError(f"`seed` must be an int, got {seed!r}.")
        if method not in METHODS:
            raise ValueError(f"`method` must be one of {METHODS}, got {method!r}.")
        if columns is not None:
            _check_whole("columns", columns)
            if columns < rank:
                raise ValueError(
                    f"`columns` must be at least rank={rank}, got {columns}: fewer columns cannot "
                    "span as many directions."
                )
        # The activations go through as they are, whatever the policy.
        super().__init__(autocast=False, **kwargs)
        keep_losses_apart(self)
        self.rank = int(rank)
        self.projection_weight = float(projection_weight)
        self.norm_weight = float(norm_weight)
        self.every = int(every)
        self.method = method
        self.columns = None if columns is None else int(columns)
        self.draws = int(draws)
        self.learning_rate = float(learning_rate)
        self.bias_learning_rate = float(bias_learning_rate)
        self.seed = int(seed)
        self.supports_masking = True
        self._projection_loss = mean_if_any(self.keras, f"{self.name}_projection_loss")
        self._norm_loss = mean_if_any(self.keras, f"{self.name}_norm_loss")

    def build(self, input_shape):
        width = _width(self, input_shape)
        if self.rank > width:
            raise ValueError(
                f"`rank` of layer {self.name!r} must be at most the {width} activations that it "
                f"sees (input shape {tuple(input_shape)}), got {self.rank}."
            )
        if self.columns is not None and self.columns > width:
            raise ValueError(
                f"`columns` of layer {self.name!r} must be at most the {width} activations that "
                f"it sees, got {self.columns}."
            )
        self.resolved_method = choose(self.method, width)
        if self.resolved_method == "factored":
            start = _orthonormal(width, self.rank, self.seed)
            # U from zero holds nothing of directions that the activations hardly use; out of
            # a random U those would fade as slowly as they are weak.
            self._u = add_state(self, "u", (width, self.rank))
            self._v = add_state(self, "v", (width, self.rank), start)
        else:
            self._w = add_state(self, "w", (width, width))
        self._b = add_state(self, "b", (width,))
        self._count = add_state(self, "count", (), dtype="int64")
        self.built = True

    @property
    def w(self):
        """W, float32 `(m, m)`: of rank `rank` after each projection, and always if factored."""
        matrix = self._matrix()
        if isinstance(matrix, tuple):
            return tf.matmul(matrix[0], matrix[1], transpose_b=True)
        return matrix

    @property
    def b(self):
        """b, float32 `(m,)`."""
        return tf.convert_to_tensor(self._b)

    def call(self, inputs, training=None):
        # A frozen layer rests, as a frozen BatchNormalization does.
        if training and self.trainable:
            self._train(inputs)
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape

    @tf.autograph.experimental.do_not_convert
    def _train(self, inputs):
        context = tf.distribute.get_replica_context()
        if context is None:  # A model being assembled in a strategy's scope.
            return
        if not inputs.dtype.is_floating:
            raise TypeError(
                f"Layer {self.name!r} takes floating-point activations, got {inputs.dtype.name}."
            )
        a = tf.reshape(tf.cast(inputs, tf.float32), [-1, self._b.shape[0]])
        w, b = self._matrix(), tf.convert_to_tensor(self._b)
        z = a + b
        e = residual(z, w)
        projection_loss = tf.reduce_mean(tf.reduce_sum(tf.square(e), axis=1))
        # Where an activation is all zero, the length has no gradient.
        length = tf.sqrt(tf.maximum(tf.reduce_sum(tf.square(a), axis=1), 1e-20))
        norm_loss = tf.reduce_mean(tf.abs(1.0 - length))
        self.add_loss(self.projection_weight * projection_loss + self.norm_weight * norm_loss)
        rows = tf.shape(a)[0]
        self._projection_loss.update_state(projection_loss, sample_weight=rows)
        self._norm_loss.update_state(norm_loss, sample_weight=rows)
        self._learn(context, tf.stop_gradient(z), tf.stop_gradient(e), w, b)

    def _learn(self, context, z, e, w, b):
        """One step of W and b on the batch of all replicas, and a projection when it is due."""
        sums = statistics(z, e, w)
        if context.num_replicas_in_sync > 1:
            sums = context.all_reduce(tf.distribute.ReduceOp.SUM, sums)
        count = tf.convert_to_tensor(self._count) + 1
        # At first W is zero, and the best b minus the mean: to learn W before b stands there
        # would spend a direction on the mean, which W then never lets go of.
        first = tf.equal(count, 1)
        rate = tf.where(first, 0.0, self.learning_rate)
        bias_rate = tf.where(first, 1.0, self.bias_learning_rate)
        w, b = step(w, b, sums, rate, bias_rate)
        self._count.assign(count)
        self._b.assign(b)
        if isinstance(w, tuple):
            self._u.assign(w[0])
            self._v.assign(w[1])
            return
        due = tf.equal(count % self.every, 0)
        if context.num_replicas_in_sync > 1:
            w = self._projected_once(context, w, count, due)
        else:
            w = tf.cond(due, lambda: tf.matmul(*self._project(w, count)), lambda: w)
        self._w.assign(w)

    def _projected_once(self, context, w, count, due):
        """`w`, when due projected by the first replica, which sends the others its factors."""
        first = tf.equal(context.replica_id_in_sync_group, 0)
        nothing = tf.zeros([w.shape[0], self.rank]), tf.zeros([self.rank, w.shape[0]])
        factors = tf.cond(due & first, lambda: self._project(w, count), lambda: nothing)
        factors = context.all_reduce(tf.distribute.ReduceOp.SUM, list(factors))
        return tf.cond(due, lambda: tf.matmul(*factors), lambda: w)

    def _project(self, w, count):
        if self.resolved_method == "svd":
            return exact(w, self.rank)
        seed = fold(as_seed(self.seed), count)
        columns = self.columns or default_columns(self.rank, w.shape[0])
        if self.resolved_method == "nystrom":
            return nystrom(w, self.rank, columns, seed)
        return ensemble(w, self.rank, columns, self.draws, seed)

    def _matrix(self):
        if self.resolved_method == "factored":
            return tf.convert_to_tensor(self._u), tf.convert_to_tensor(self._v)
        return tf.convert_to_tensor(self._w)

    def get_config(self):
        own = (
            "rank projection_weight norm_weight every method columns draws learning_rate "
            "bias_learning_rate seed"
        )
        return {**super().get_config(), **{name: getattr(self, name) for name in own.split()}}


@keras.saving.register_keras_serializable(PACKAGE)
class LowRankVirtual(Virtual, keras.layers.Layer):
    """Pulls the activations `a` that pass through towards `rank` dimensions, and changes nothing.

    Sanyal, Kanade, Torr and Dokania 2020, https://arxiv.org/abs/1804.07090. The input is
    returned as it came, bit for bit. In training two losses are added to the model's,
    `projection_weight * Lc + norm_weight * Ln`:

        Lc = mean ||W^T (a + b) - (a + b)||^2,    Ln = mean | 1 - ||a|| |

    Ln keeps Lc from shrinking the activations to nothing. Layers below get the gradient of both,
    layers above that of the model's own loss alone. W and b are no trainable weights: they
    follow the gradient of Lc in the layer's own training call, as BatchNormalization moves its
    statistics, and every `every` calls W becomes the nearest matrix of rank `rank`. So no
    optimizer, weight decay, pruning, clustering or quantization touches them. After training
    `kr.layers.strip_virtual(model)` takes the layer out. Maps are flattened: an input of
    `(batch, h, w, c)` counts as m = h w c activations.

    `fit` logs the two means as `<name>_projection_loss` and `<name>_norm_loss`; in validation,
    where the layer rests, they are NaN. A layer with `trainable = False` rests too.

    Args:
        rank: r, 1 <= rank <= m; about the number of classes before a classifier.
        projection_weight: lambda_c, weight of Lc, >= 0.
        norm_weight: lambda_n, weight of Ln, >= 0.
        every: training calls from one projection of W to the next.
        method: how W is projected. "svd": exactly, at a cost of m^3. "nystrom": on directions
            found in sampled columns, at m l^2 + m^2 r. "ensemble": on the average of `draws`
            such projections, cut to rank again. "factored": W = U V^T of rank r by construction,
            without any projection and without an m x m matrix, which departs from the paper.
            "auto": "svd" up to m = 256, "ensemble" up to 2,048, "factored" above.
        columns: l, the number of sampled columns, rank <= l <= m; None for max(2 r, r + 10).
        draws: p, the samples of "ensemble".
        learning_rate: of W, in (0, 1), in units of 1 / mean ||a + b||^2: then it suits
            activations of any scale.
        bias_learning_rate: of b, in (0, 1); cut where a step would overshoot.
        seed: of the columns, and of the first V.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras layer. Inside, all is float32.

    Raises:
        ValueError, TypeError: an argument out of its range; when built, `rank` or `columns`
            above m, or an input shape that leaves m open.

    >>> layer = kr.layers.LowRankVirtual(rank=2)
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), layer])
    >>> _ = model(tf.ones([3, 4]), training=True)
    >>> len(model.losses), len(model.trainable_weights)
    (1, 2)
    """

    keras = keras


def choose(method: str, width: int) -> str:
    """The method that "auto" stands for at m = `width`.

    >>> [choose("auto", m) for m in (64, 512, 4096)]
    ['svd', 'ensemble', 'factored']
    """
    if method != "auto":
        return method
    if width <= SVD_LIMIT:
        return "svd"
    return "ensemble" if width <= DENSE_LIMIT else "factored"


def default_columns(rank: int, width: int) -> int:
    """How many columns are sampled unless `columns` says so."""
    return min(width, max(2 * rank, rank + 10))


def _width(layer, input_shape) -> int:
    shape = tuple(input_shape)
    if len(shape) < 2:
        raise ValueError(
            f"Layer {layer.name!r} needs a batch axis and at least one of activations, got an "
            f"input of shape {shape}."
        )
    if None in shape[1:]:
        raise ValueError(
            f"Layer {layer.name!r} needs to know how many activations it sees, got an input of "
            f"shape {shape}. Give keras.Input a full shape, or put the layer after a pooling one "
            "such as GlobalAveragePooling2D."
        )
    return math.prod(shape[1:])


def _orthonormal(width, rank, seed) -> np.ndarray:
    generator = np.random.default_rng(seed % 2**64)
    return np.linalg.qr(generator.normal(size=(width, rank)).astype("float32"))[0]


def _check_whole(name, value):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"`{name}` must be a whole number >= 1, got {value!r}.")


def _check_weight(name, value):
    if not isinstance(value, numbers.Real) or not 0 <= value < math.inf:
        raise ValueError(f"`{name}` must be a number >= 0, got {value!r}.")


def _check_rate(name, value):
    if not isinstance(value, numbers.Real) or not 0 < value < 1:
        raise ValueError(f"`{name}` must lie strictly between 0 and 1, got {value!r}.")
