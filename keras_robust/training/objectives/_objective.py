"""The seam where an objective plugs into `AdversarialTraining`."""

import abc
import collections.abc
import dataclasses
import numbers
import typing

import tensorflow as tf

from keras_robust import losses
from keras_robust.attacks import Ascent, Ball
from keras_robust.attacks._attack import Goal, Value, call_logits, loss_scale
from keras_robust.attacks._threat import UNBOUNDED


@dataclasses.dataclass(frozen=True)
class Step:
    """What one step of training gives its objective.

    Attributes:
        model: the Keras model under training; call it with `training=True` for the weights.
        attack: the trainer's attack, made ready for training.
        eps: its radius at this step, a scalar tensor when ramped.
        seed: int32 `(2,)`, different in every step and replica.
        compiled_loss: `(y, logits, sample_weight) -> scalar`, as given to `compile`, plus the
            model's regularisation losses.
        carried: for an objective that `carries`, what it left behind, the shape of the inputs.
        teacher_logits: `(batch, teachers, classes)` where the data holds them.
    """

    model: typing.Any
    attack: Ascent
    eps: float | tf.Tensor
    seed: tf.Tensor
    compiled_loss: collections.abc.Callable
    carried: tf.Tensor | None = None
    teacher_logits: tf.Tensor | None = None

    @property
    def ball(self) -> Ball:
        """The perturbations that the attack may use, at this step's radius."""
        return Ball(self.attack.norm, self.eps, self.attack.bounds)

    @property
    def unbounded_ball(self) -> Ball:
        """The same without the range of valid inputs, for linf and l2.

        An l1 step without bounds would put the whole radius into one entry.
        """
        if self.attack.norm == "l1":
            return self.ball
        return Ball(self.attack.norm, self.eps, UNBOUNDED)

    def attacked(self, x, y) -> tf.Tensor:
        """The attack's own examples for the model as it is."""
        return self.attack.perturb(self.attack.goal(self.model, y), x, self.seed, self.eps)

    @property
    def added(self) -> tf.Tensor:
        """What the layers added to the loss in the last call, as `compiled_loss` holds it."""
        losses = [tf.cast(loss, tf.float32) for loss in getattr(self.model, "losses", [])]
        total = tf.add_n(losses) if losses else tf.constant(0.0)
        return total / tf.distribute.get_strategy().num_replicas_in_sync

    def mean(self, values, sample_weight=None) -> tf.Tensor:
        """The mean of `(batch,)` losses, scaled so that the sum over replicas is the mean."""
        if sample_weight is not None:
            values *= tf.reshape(tf.cast(sample_weight, values.dtype), [-1])
        return tf.reduce_mean(values) / tf.distribute.get_strategy().num_replicas_in_sync


class Outcome(typing.NamedTuple):
    """What an objective says of a batch.

    Attributes:
        loss: scalar, to be minimised.
        logits: `(batch, classes)`, what the compiled metrics are fed with.
        adv_logits: `(batch, classes)` at the adversarial examples.
    """

    loss: tf.Tensor
    logits: tf.Tensor
    adv_logits: tf.Tensor


class Objective(abc.ABC):
    """An objective: how the examples are found, and what is minimised on them."""

    # Settings say otherwise: steps of the weights on each batch.
    replays = 1
    # Whether a perturbation is carried from step to step: `Carrying` says otherwise.
    carries = False
    # Whether the data holds teachers' logits beside the labels.
    stored = False
    # Whether examples are found by finite differences, which need float32.
    takes_differences = False

    @abc.abstractmethod
    def perturb(self, step: Step, x, y) -> tf.Tensor:
        """The inner maximisation.

        Args:
            step: the model, the attack and their settings.
            x: `(batch, ...)` float32.
            y: `(batch,)` int32, or `(batch, classes)` float32.

        Returns:
            Adversarial examples of the shape of `x`; no gradient flows through them.
        """

    def check_attack(self, attack) -> None:  # noqa: B027 (most can use any attack)
        """Raises `ValueError` unless examples can be found with `attack`, that of the trainer."""

    @abc.abstractmethod
    def minimise(self, step: Step, x, x_adv, y, sample_weight) -> Outcome:
        """The outer minimisation, recorded on the trainer's tape; `y` as `fit` got it."""


class Carrying(Objective):
    """An objective that carries a perturbation from step to step, zero at first.

    The trainer holds it, one row for each of a batch; a shorter batch uses the first rows.
    """

    carries = True

    @abc.abstractmethod
    def carry(self, step: Step, x, gradient) -> tf.Tensor:
        """What to carry on.

        Args:
            step: as `minimise` got it; `step.carried` is what was carried so far.
            x: `(batch, ...)` float32, the clean inputs.
            gradient: the gradient of the outcome's loss at the adversarial examples, up to a
                positive factor, from the same backward pass as that of the weights.

        Returns:
            The shape of `x`.
        """


class Wrapping(Objective):
    """An objective around another, `inner`, which finds and uses the examples."""

    inner: Objective

    @property
    def stored(self):
        return self.inner.stored

    @property
    def takes_differences(self):
        return self.inner.takes_differences

    def check_attack(self, attack):
        self.inner.check_attack(attack)


def divergence_from(wanted, model) -> Goal:
    """What climbs the divergence of `model`'s prediction from that of the logits `wanted`."""
    own, scale = tf.argmax(wanted, axis=-1), loss_scale(model)

    def divergence(x_adv) -> Value:
        logits = call_logits(model, x_adv)
        missed = tf.argmax(logits, axis=-1) != own
        return Value(losses.kl_divergence(wanted, logits) * scale, missed)

    return divergence


def check_inner(inner, outer: str) -> None:
    """Raises unless `inner` is an objective that takes one step on each batch."""
    if not isinstance(inner, Objective):
        raise TypeError(
            f"`inner` must be an objective such as kr.objectives.Madry(), got {inner!r}."
        )
    if inner.replays != 1 or inner.carries:
        raise ValueError(
            f"{outer} cannot be wrapped around {inner!r}, which replays its batches. Use for "
            "instance inner=kr.objectives.Fast()."
        )


def check_weight(objective, name: str) -> None:
    """Raises unless the setting `name` is a number >= 0."""
    value = getattr(objective, name)
    if not (isinstance(value, numbers.Real) and 0 <= value < float("inf")):
        raise ValueError(f"`{name}` must be a finite number >= 0, got {name}={value!r}.")


def check_alpha(objective) -> None:
    """Raises unless `alpha`, a step in units of eps, is a number > 0."""
    check_weight(objective, "alpha")
    if objective.alpha == 0:
        raise ValueError("`alpha` must be > 0 in units of eps, got alpha=0.")
