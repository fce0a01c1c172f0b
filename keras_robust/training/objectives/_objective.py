"""The seam where an objective plugs into `AdversarialTraining`."""

import abc
import collections.abc
import dataclasses
import typing

import tensorflow as tf

from keras_robust.attacks import Ascent


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
    """

    model: typing.Any
    attack: Ascent
    eps: float | tf.Tensor
    seed: tf.Tensor
    compiled_loss: collections.abc.Callable

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

    @abc.abstractmethod
    def minimise(self, step: Step, x, x_adv, y, sample_weight) -> Outcome:
        """The outer minimisation, recorded on the trainer's tape; `y` as `fit` got it."""
