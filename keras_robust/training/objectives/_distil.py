"""A student that learns its teachers' softened predictions, clean or under attack."""

import dataclasses
import typing

import tensorflow as tf

from keras_robust import losses
from keras_robust._checks import assert_logits, check_labels, check_logit_model
from keras_robust.attacks._attack import call_logits
from keras_robust.losses._distillation import check_ensemble, check_temperature
from keras_robust.training.objectives._objective import (
    Objective,
    Outcome,
    check_weight,
    divergence_from,
)

METHODS = ("ard", "rslad", "iad")


@dataclasses.dataclass(frozen=True)
class Distil(Objective):
    """The distillation loss; `kr.Distillation` is the trainer for it.

    A teacher that returns probabilities stops training at the first step, unless XLA compiles
    it. The teachers are called in inference mode and always see the clean inputs (for "iad" the
    adversarial ones too). Without an attack it is Hinton et al. 2015,
    https://arxiv.org/abs/1503.02531, on clean inputs. With one:

    - "ard", Goldblum et al. 2020, https://arxiv.org/abs/1905.09747, eq. 3: the soft term at
      examples that climb the attack's loss, the compiled loss at clean inputs;
    - "rslad", Zi et al. 2021, https://arxiv.org/abs/2108.07969, eq. 6: soft labels everywhere,
      `alpha` of them at adversarial inputs, the rest at clean ones; the attack climbs the
      divergence from the teacher; no compiled loss;
    - "iad", Zhu et al. 2022, https://arxiv.org/abs/2106.04928, eq. 4: the teacher is trusted as far
      as it gets the adversarial input right, to the power of `trust`, and the student's own
      clean prediction for the rest; the compiled loss at clean inputs.

    Attributes:
        teachers: models, or callables of TensorFlow operations, that return logits; or "stored":
            the data holds their logits.
        temperature: T > 0, of teachers and student in the soft term.
        alpha: share of the soft term, in [0, 1].
        method: "ard", "rslad" or "iad".
        mean: "arithmetic" or "geometric" mean of several teachers.
        weights: one a teacher, or None.
        trust: beta of "iad", >= 0.
        attacked: whether there is an attack.

    Raises:
        TypeError: a teacher of the other Keras.
        ValueError: a setting out of its range, or a teacher that ends in softmax.
    """

    teachers: typing.Any
    temperature: float = 4.0
    alpha: float = 0.9
    method: str = "ard"
    mean: str = "arithmetic"
    weights: typing.Any = None
    trust: float = 0.1
    attacked: bool = True

    def __post_init__(self):
        stored = isinstance(self.teachers, str)
        if stored and self.teachers != "stored":
            raise ValueError(
                f"`teachers` must be models or 'stored', got {self.teachers!r}. Load the model: "
                "keras.models.load_model(path)."
            )
        if stored and self.attacked and self.method == "iad":
            raise ValueError(
                "`teachers` must be models for method='iad', which asks them about adversarial "
                "inputs, got 'stored'."
            )
        many = isinstance(self.teachers, (list, tuple))
        teachers = () if stored else tuple(self.teachers) if many else (self.teachers,)
        object.__setattr__(self, "teachers", teachers)
        object.__setattr__(self, "stored", stored)
        check_temperature(self.temperature, self.alpha)
        if not stored:
            check_ensemble(len(self.teachers), self.mean, self.weights)
        check_weight(self, "trust")
        if self.method not in METHODS:
            raise ValueError(f"`method` must be one of {METHODS}, got {self.method!r}.")
        for index, teacher in enumerate(self.teachers):
            check_logit_model(teacher, f"teachers[{index}]")

    def __repr__(self):
        # A model's own repr may hold its address, and runs are told apart by this.
        names = [getattr(model, "name", type(model).__name__) for model in self.teachers]
        names = "stored" if self.stored else names
        rest = "temperature alpha method mean weights trust attacked".split()
        settings = ", ".join(f"{name}={getattr(self, name)!r}" for name in rest)
        return f"Distil(teachers={names}, {settings})"

    def perturb(self, step, x, y):
        if not self.attacked:
            return x
        if self.method != "rslad":
            return step.attacked(x, y)
        wanted = self._teach(step, x)
        goal = divergence_from(wanted, step.model)
        return step.attack.perturb(goal, x, step.seed, step.eps)

    def minimise(self, step, x, x_adv, y, sample_weight):
        wanted = self._teach(step, x)
        logits = step.model(x, training=True)
        adv_logits = step.model(x_adv, training=True) if self.attacked else logits
        soft = self._soft(wanted, adv_logits)
        if self.attacked and self.method == "iad":
            sure = tf.cast(self._trusted(step, x_adv, y), soft.dtype)
            soft = sure * soft + (1 - sure) * self._soft(tf.stop_gradient(logits), adv_logits)
        soft = step.mean(soft, sample_weight)
        if self.attacked and self.method == "rslad":
            added = step.added
            hard = step.mean(self._soft(wanted, logits), sample_weight)
        else:
            hard = step.compiled_loss(y, logits, sample_weight)
            added = step.added
            hard -= tf.cast(added, hard.dtype)
        soft, added = tf.cast(soft, hard.dtype), tf.cast(added, hard.dtype)
        # What layers add (weight decay, for one) has no part in the sharing.
        loss = added + (1 - self.alpha) * hard + self.alpha * soft
        return Outcome(loss, logits, adv_logits)

    def _teach(self, step, x):
        if self.stored:
            logits = tf.unstack(step.teacher_logits, axis=1)
        else:
            logits = [tf.stop_gradient(call_logits(teacher, x)) for teacher in self.teachers]
        for index, each in enumerate(logits):
            # What a SavedModel or a subclassed model ends in shows in its values alone.
            assert_logits(each, f"teachers[{index}]")
        return losses.ensemble_logits(logits, self.temperature, self.mean, self.weights)

    def _soft(self, wanted, logits):
        return losses.distillation(None, logits, wanted, self.temperature, alpha=1.0)

    def _trusted(self, step, x_adv, y):
        """How far the teacher's word counts, `(batch,)` in [0, 1]."""
        wrong = losses.cross_entropy(check_labels(y), self._teach(step, x_adv))
        return tf.exp(-self.trust * wrong)
