"""What every attack shares: the call, its checks, and the goal that it climbs."""

import abc
import collections.abc
import dataclasses
import math
import numbers
import typing
import weakref

import tensorflow as tf

from keras_robust import losses
from keras_robust._checks import (
    check_channels_last,
    check_images,
    check_labels,
    check_logit_model,
    check_logits,
    check_same_length,
)
from keras_robust._fast_passes import fast_passes
from keras_robust._keras import is_model
from keras_robust._seed import as_seed
from keras_robust.attacks._straight_through import StraightThrough
from keras_robust.attacks._threat import (
    NORMS,
    check_threat,
    float32_below,
    size,
    warn_of_units,
)

# "ce" climbs the cross-entropy: the log odds have the same direction and do not round to zero.
LOSSES = {"ce": losses.log_odds, "margin": losses.margin, "dlr": losses.dlr}


class Value(typing.NamedTuple):
    """What a goal says of a batch of candidates.

    Attributes:
        climb: `(batch,)` float32, to be made as large as possible.
        fooled: `(batch,)` bool, whether the attack has reached its end.
    """

    climb: tf.Tensor
    fooled: tf.Tensor


Goal = collections.abc.Callable[[tf.Tensor], Value]


class Attack(abc.ABC):
    """An attack: settings in a frozen dataclass with `eps`, `norm` and `bounds`.

    `eps` is the radius of the ball that examples stay in. Attacks that seek the smallest
    perturbation may have `eps=None`: no radius. A subclass says in `run` what it does;
    calling it is the same for all.
    """

    # Classes or their settings say otherwise. An attack that `searches` looks for the smallest
    # perturbation.
    needs_gradient = True
    searches = False
    targeted = False
    # Whether it reads more of the logits than which is the largest.
    _needs_scores = True
    # Whether it moves, or fills windows of, images, so that it must know which axes these are.
    _channels_last = False

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """A short label for tables, such as "PGD-20"."""

    def for_eps_one(self) -> "Attack":
        """This attack with every setting that scales with `eps` divided by it.

        One trace serves all radii then, so that an accuracy-eps curve is traced once.
        """
        return self if self.eps is None else dataclasses.replace(self, eps=1.0)

    @abc.abstractmethod
    def run(self, model, x, y, seed, eps) -> tf.Tensor:
        """Adversarial examples, from checked arguments and usually inside a graph.

        Args:
            model: Keras model or callable; `call_logits(model, x)` gives float32 logits.
            x: `(batch, ...)` float32 inside the bounds.
            y: `(batch,)` int32, or `(batch, classes)` float32; `hard_labels(y)` are class
                numbers.
            seed: int32 `(2,)`.
            eps: scalar, in the units of `x`, replaces the setting; infinite without one.

        Returns:
            float32, the shape of `x`. Rows for which a search for the smallest perturbation
            found none, or only one beyond `eps`, are those of `x`.
        """

    def __call__(self, model, x, y, seed=0) -> tf.Tensor:
        """Adversarial examples for `model` around `x`.

        Eager calls are compiled once for each model and attack and then reused, as a
        `tf.function` is: what the callable reads from Python is read at its first call. A
        `BlackBox` is called op by op where TensorFlow has a single thread.

        Args:
            model: Keras model or TensorFlow callable `(batch, ...) -> (batch, classes)` that
                returns logits. A Keras model is called with `training=False`.
            x: `(batch, ...)` floating point, inside the attack's `bounds`; float64 is rounded to
                float32 first, and the ball is around that.
            y: `(batch,)` int labels, or `(batch, classes)` one-hot or soft labels; the
                targets to reach when the attack is targeted.
            seed: int, or int32 `(2,)` tensor; the same seed gives the same result.

        Returns:
            float32, the shape of `x`, at most eps away from it in the attack's norm.

        Raises:
            TypeError: no array, wrong dtype, not a callable, or a model of the other Keras.
            ValueError: wrong shapes, channels first where the attack must know rows and columns,
                NaN, values outside the bounds, labels out of range, or a model that gives
                probabilities.
        """
        check_logit_model(model, scores=self._needs_scores)
        x = check_images(x, self.bounds)
        if self._channels_last:
            check_channels_last(x)
        y = check_labels(y)
        check_same_length(x, y)
        if not tf.executing_eagerly():
            return self.run(model, x, y, as_seed(seed), self._radius)
        if getattr(model, "must_run_eagerly", False):
            check_labels(y, check_logits(call_logits(model, x), scores=self._needs_scores))
            return self.run(model, x, y, as_seed(seed), self._radius)
        function, classes = _compiled(model, self.for_eps_one(), x, y)
        check_labels(y, classes)
        return function(x, y, as_seed(seed), tf.constant(float32_below(self._radius)))

    @property
    def _radius(self) -> float:
        return math.inf if self.eps is None else self.eps


class Ascent(Attack):
    """An attack that climbs a loss inside its ball: the kind that training takes.

    A subclass says how it climbs a `Goal` in `perturb`; its settings hold the `loss`.
    """

    # Calls of the model for each value and gradient; settings say otherwise.
    eot = 1

    @abc.abstractmethod
    def for_training(self) -> "Ascent":
        """This attack without what only an evaluation needs."""

    @abc.abstractmethod
    def perturb(self, goal: Goal, x, seed, eps) -> tf.Tensor:
        """Inputs in the ball of radius `eps` around `x` where `goal` is high.

        Args:
            goal: `(batch, ...) -> Value`, differentiable.
            x: `(batch, ...)` float32 inside the bounds.
            seed: int32 `(2,)`.
            eps: scalar, in the units of `x`, replaces the setting.

        Returns:
            float32, the shape of `x`.
        """

    def run(self, model, x, y, seed, eps):
        return self.perturb(self.goal(model, y), x, seed, eps)

    def goal(self, model, y) -> Goal:
        """The attack's own loss of `model` at labels `y`, and whether they are missed (reached)."""
        loss = LOSSES.get(self.loss, self.loss)
        return make_goal(model, y, loss, self.targeted, self.eot)


def make_goal(model, y, loss, reach=False, eot=1) -> Goal:
    """What climbing `loss` of `model` at labels `y` means.

    Args:
        model: Keras model or callable.
        y: `(batch,)` int32, or `(batch, classes)` float32.
        loss: `(labels, logits) -> (batch,)`.
        reach: the labels are to be reached, and the loss made small.
        eot: calls of a randomised model that value and gradient are the mean of.
    """
    scale = loss_scale(model)

    def value(x_adv) -> Value:
        logits = call_logits(model, x_adv)
        missed = tf.argmax(logits, axis=-1, output_type=tf.int32) != hard_labels(y)
        climb = loss(y, logits) * scale
        if climb.shape.rank != 1:
            raise ValueError(
                "`loss` must return one value an example, (batch,), got shape "
                f"{tuple(climb.shape)}. Give a Keras loss reduction='none'."
            )
        climb = -climb if reach else climb
        # The worst of values: nothing is larger than NaN, which a search would never leave.
        climb = tf.where(tf.math.is_nan(climb), climb.dtype.min, climb)
        return Value(climb, ~missed if reach else missed)

    return value if eot == 1 else _expected(value, eot)


def _expected(goal: Goal, calls: int) -> Goal:
    """The mean of `calls` calls of a random `goal`; fooled where most of them are.

    Expectation over transformation, Athalye et al. 2018, https://arxiv.org/abs/1802.00420. The
    gradient is taken call by call, so that memory and tracing stay those of one call.
    """

    @tf.custom_gradient
    def mean(x_adv):
        def call(climb, fooled, gradient):
            value, slope = value_and_gradient(goal, x_adv)
            return climb + value.climb, fooled + tf.cast(value.fooled, tf.float32), gradient + slope

        none = tf.zeros(tf.shape(x_adv)[:1])
        climb, fooled, gradient = tf.while_loop(
            lambda *_: True,
            call,
            (none, none, tf.zeros_like(x_adv)),
            parallel_iterations=1,
            maximum_iterations=calls,
        )

        def backward(upstream, _, variables=()):
            slope = rows_of(upstream, x_adv) * gradient / calls
            return (slope, [None] * len(variables)) if variables else slope

        return (climb / calls, fooled / calls), backward

    def value(x_adv) -> Value:
        climb, share = mean(x_adv)
        return Value(climb, share > 0.5)

    return value


def call_logits(model, x) -> tf.Tensor:
    """Float32 logits in inference mode: no BatchNorm statistics, no dropout, no metrics."""
    logits = model(x, training=False) if is_model(model) else model(x)
    if isinstance(logits, (dict, list, tuple)):
        raise ValueError(
            f"`model` must return one tensor of logits, got a {type(logits).__name__}. Wrap it: "
            "lambda x: model(x)['logits']."
        )
    return tf.cast(logits, tf.float32)


def hard_labels(y) -> tf.Tensor:
    """Class numbers, int32 `(batch,)`, of labels or label vectors."""
    return y if y.shape.rank == 1 else tf.argmax(y, axis=-1, output_type=tf.int32)


def rows_of(mask, like) -> tf.Tensor:
    """`(batch,)` reshaped to broadcast over the rows of `like`."""
    return tf.reshape(mask, [-1] + [1] * (like.shape.rank - 1))


def keep_within(x, x_adv, found, norm, eps) -> tf.Tensor:
    """`x_adv` in the rows that are `found` and within `eps` of `x`, else `x`.

    Args:
        x, x_adv: `(batch, ...)` float32.
        found: `(batch,)` bool.
        norm: "linf", "l2" or "l1".
        eps: scalar, may be infinite.
    """
    return tf.where(rows_of(found & within(x, x_adv, norm, eps), x), x_adv, x)


def within(x, x_adv, norm, eps) -> tf.Tensor:
    """Whether each row of `x_adv` is at most `eps` from `x`, `(batch,)`, summed in float64."""
    distance = size(tf.cast(x_adv, tf.float64) - tf.cast(x, tf.float64), norm)
    return distance <= tf.cast(eps, tf.float64)


def settle(attack, norms=NORMS, optional_eps: bool = False) -> None:
    """Checks an attack's threat model as it is made, and keeps it in plain, hashable numbers.

    Warns of an `eps` that looks like one in the wrong units.

    Args:
        attack: has `eps`, `norm` and `bounds`.
        norms: those it can do.
        optional_eps: whether it works without a radius too, with `eps=None`.

    Raises:
        ValueError: they do not describe a threat model that the attack can do.
    """
    without = optional_eps and attack.eps is None
    eps, bounds = check_threat(0.0 if without else attack.eps, attack.norm, attack.bounds)
    if attack.norm not in norms:
        raise ValueError(
            f"{type(attack).__name__} works in the norms {', '.join(map(repr, norms))}, got "
            f"norm={attack.norm!r}."
        )
    warn_of_units(eps, attack.norm, bounds)
    object.__setattr__(attack, "eps", None if without else eps)
    object.__setattr__(attack, "bounds", bounds)


def check_loss(loss, targeted) -> None:
    """Raises unless `loss` names a loss or is one, and `targeted` is a bool."""
    if not callable(loss) and loss not in LOSSES:
        raise ValueError(
            f"`loss` must be one of {', '.join(map(repr, LOSSES))} or a function "
            f"(labels, logits) -> (batch,), got loss={loss!r}."
        )
    if not isinstance(targeted, bool):
        raise TypeError(f"`targeted` must be True or False, got targeted={targeted!r}.")


def check_counts(attack, *names) -> None:
    """Keeps the settings `names` as plain ints, and raises unless they are at least 1."""
    for name in names:
        value = getattr(attack, name)
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"`{name}` must be an int >= 1, got {name}={value!r}.")
        object.__setattr__(attack, name, int(value))


def value_and_gradient(goal: Goal, x_adv):
    """`goal` at `x_adv` and its gradient there; entries that are not finite count as zero."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x_adv)
        value = goal(x_adv)
    gradient = tape.gradient(value.climb, x_adv)
    if gradient is None:
        raise ValueError(
            "`model` has no gradient with respect to its input: it does not use it, or it goes "
            "through numpy or another operation without a gradient. Write it in TensorFlow "
            "operations, or use an attack without gradients."
        )
    return value, tf.where(tf.math.is_finite(gradient), gradient, 0.0)


def loss_scale(model) -> float:
    """Float16 gradients below 6e-8 vanish, and attacks only look at their direction."""
    if isinstance(model, StraightThrough):
        model = model.model
    # Not by the model's own dtype, which for a functional one is the policy that it was built in.
    layers = model._flatten_layers() if is_model(model) else ()
    return 128.0 if any(layer.compute_dtype == "float16" for layer in layers) else 1.0


# Model -> {(attack at eps 1, rank of y, shape of an image): (compiled function, classes)}. The
# functions hold their model weakly: a reference from value to key would keep every attacked
# model alive.
_functions = weakref.WeakKeyDictionary()


def _compiled(model, attack, x, y):
    try:
        known = _functions.setdefault(model, {})
        reference = weakref.ref(model)
    except TypeError:  # neither hashable nor weakly referable: compiled for this call only
        known, reference = {}, lambda: model
    # One for each shape of image: a relaxed trace would lose the lengths that attacks count on.
    key = (attack, y.shape.rank, tuple(x.shape[1:]))
    if key not in known:
        # Looked at with values, which a trace has not.
        classes = check_logits(call_logits(model, x), scores=attack._needs_scores)

        @tf.function(reduce_retracing=True, autograph=False)
        def run(x, y, seed, eps):
            with fast_passes(reference()):
                return attack.run(reference(), x, y, seed, eps)

        known[key] = run, classes
    return known[key]
