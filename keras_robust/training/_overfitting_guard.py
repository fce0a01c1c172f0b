"""A watch for the collapse of training with single steps."""

import warnings

import numpy as np
import tensorflow as tf

from keras_robust._checks import check_images, check_labels, check_same_length
from keras_robust.attacks import PGD, Attack
from keras_robust.attacks._attack import call_logits
from keras_robust.training._adversarial import AdversarialTraining
from keras_robust.training._attack_dtype import check_attack_dtype
from keras_robust.training._remembering import Remembering
from keras_robust.training.objectives import Madry, Objective


class OverfittingGuard(Remembering):
    """Notices when robust accuracy on held-out images collapses, and goes on with full attacks.

    Training on single steps (`kr.objectives.Fast`) can fail within an epoch: its own log stays
    high while PGD finds nothing left (catastrophic overfitting, Wong et al. 2020,
    https://arxiv.org/abs/2001.03994, section 5.2). After each epoch, and every `every` steps, PGD
    attacks the held-out images, logged as "guard_robust_accuracy". When the accuracy is more than
    `drop` below its best, the weights of the best are put back and training goes on with
    `fallback`: the trainer's own attack in full. The optimizer and its schedule go on as they
    are. Collapses once more, training stops. With `fit(resume=...)` all this is part of the
    state.

    Args:
        x: `(n, ...)` held-out images; a few hundred are enough, they cost a PGD attack each time.
        y: `(n,)` their labels.
        attack: that measures; default PGD-10 in the trainer's ball.
        drop: of robust accuracy below its best that counts as collapse, in (0, 1).
        every: steps between measurements inside an epoch, or None; executions of k steps each with
            `compile(steps_per_execution=k)`.
        fallback: objective to go on with.

    Raises:
        TypeError: `attack` is no attack, or `fallback` no objective.
        ValueError: a setting out of its range, or images or labels that cannot be used; in `fit`,
            a `fallback` that the trainer cannot use, or another model than before.

    >>> guard = OverfittingGuard(np.zeros((2, 4), "float32"), [0, 1], drop=0.2)
    """

    def __init__(self, x, y, attack=None, *, drop=0.2, every=None, fallback=None):
        super().__init__()
        fallback = Madry() if fallback is None else fallback
        if attack is not None and not isinstance(attack, Attack):
            raise TypeError(
                f"`attack` must be for instance kr.attacks.PGD(eps=0.1), got {attack!r}."
            )
        if not isinstance(fallback, Objective):
            raise TypeError(f"`fallback` must be an objective, got {fallback!r}.")
        if not 0 < drop < 1:
            raise ValueError(f"`drop` must be in (0, 1), got drop={drop!r}.")
        if every is not None and (not isinstance(every, int) or every < 1):
            raise ValueError(f"`every` must be an int >= 1, or None, got every={every!r}.")
        self.x, self.y = check_images(x), check_labels(y)
        check_same_length(self.x, self.y)
        self.attack, self.drop, self.every, self.fallback = attack, drop, every, fallback

    @property
    def collapsed(self) -> bool:
        """Whether training has collapsed and goes on with `fallback`."""
        return self.created is not None and bool(_value(self._collapsed))

    def create_variables(self, trainer, model):
        if not isinstance(trainer, AdversarialTraining):
            raise TypeError(
                "OverfittingGuard watches kr.AdversarialTraining, got a "
                f"{type(trainer).__name__}. Call fit on the trainer."
            )
        self._check_fallback(trainer, model)
        self._trained = model
        self._best = tf.Variable(-1.0, trainable=False)
        self._collapsed = tf.Variable(False, trainable=False)
        self._good = [
            tf.Variable(tf.convert_to_tensor(v), trainable=False) for v in model.variables
        ]
        # Of all epochs, so that a resumed run looks at the steps that a whole one looks at.
        self._steps = tf.Variable(0, trainable=False)
        return [self._best, self._collapsed, self._steps, *self._good]

    def _check_fallback(self, trainer, model):
        """Raises unless training can go on with it, which would else fail after the collapse."""
        if trainer.attack is None:
            raise ValueError(
                f"OverfittingGuard needs a trainer with an attack, got a {type(trainer).__name__} "
                "without one, which has nothing to go on with."
            )
        if self.fallback.carries:
            raise ValueError(
                f"`fallback` must not be {self.fallback!r}, which carries a perturbation from step "
                "to step. Use for instance kr.objectives.Madry()."
            )
        if self.fallback.stored and not trainer.objective.stored:
            raise ValueError(
                f"`fallback`={self.fallback!r} needs stored logits, which the trainer's data does "
                "not hold. Give it the teachers themselves."
            )
        self.fallback.check_attack(trainer.attack)
        check_attack_dtype(trainer.attack_dtype, model, self.fallback)

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        if self.attack is None:
            ball = self.model.attack
            self.attack = PGD(ball.eps, norm=ball.norm, steps=10, bounds=ball.bounds)
        if self.collapsed:
            self._train_with(self.fallback)

    def on_train_batch_end(self, batch, logs=None):
        if self.every is None:
            return
        self._steps.assign_add(1)
        if _value(self._steps) % self.every == 0:
            self._check()

    def on_epoch_end(self, epoch, logs=None):
        accuracy = self._check()
        if logs is not None:
            logs["guard_robust_accuracy"] = accuracy

    def _check(self) -> float:
        """Measures, keeps the weights if they are the best, acts if they have collapsed."""
        accuracy, best = self._robust_accuracy(), _value(self._best)
        if accuracy >= best:
            self._best.assign(accuracy)
            for good, variable in zip(self._good, self._trained.variables):
                good.assign(tf.convert_to_tensor(variable))
        elif accuracy < best - self.drop:
            self._act(accuracy)
        return accuracy

    def _act(self, accuracy):
        for good, variable in zip(self._good, self._trained.variables):
            variable.assign(good)
        what = (
            f"Robust accuracy on held-out images fell from {_value(self._best):.3f} to "
            f"{accuracy:.3f}: the best weights are put back, and training"
        )
        if self.collapsed:
            warnings.warn(f"{what} stops, since it has collapsed before.", stacklevel=2)
            self.model.stop_training = True
            return
        warnings.warn(f"{what} goes on with {self.fallback!r}.", stacklevel=2)
        self._collapsed.assign(True)
        self._train_with(self.fallback)

    def _train_with(self, objective):
        self.model.objective = objective
        self.model.make_train_function(force=True)

    def _robust_accuracy(self) -> float:
        right = []
        for start in range(0, self.x.shape[0], 256):
            x, y = self.x[start : start + 256], self.y[start : start + 256]
            x_adv = self.attack(self._trained, x, y)
            found = tf.argmax(call_logits(self._trained, x_adv), axis=-1, output_type=tf.int32)
            right.append(found.numpy() == y.numpy())
        return float(np.mean(np.concatenate(right)))


def _value(variable):
    """That of a scalar variable, which tf_keras mirrors over several devices."""
    return variable.numpy().item()
