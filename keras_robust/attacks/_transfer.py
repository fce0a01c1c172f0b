"""An attack made on one model and tried on another."""

import dataclasses
import typing

import tensorflow as tf

from keras_robust._checks import check_images, check_labels, check_logit_model, check_logits
from keras_robust.attacks._attack import Attack, call_logits, hard_labels
from keras_robust.attacks._best import choose


@dataclasses.dataclass(frozen=True)
class Transfer(Attack):
    """Examples made on `surrogate`, tried on the model that is attacked.

    Szegedy et al. 2014, https://arxiv.org/abs/1312.6199: examples for one network fool others.
    Device files and endpoints without gradients are attacked through the float model that
    they were made from, or one that was trained alike.

    An image that the attacked model misses and its example does not stays as it is. Without
    `eps`, so does every image whose example does not fool the attacked model.

    Attributes:
        attack: what makes the examples; its `eps`, `norm` and `bounds` hold.
        surrogate: Keras model or TensorFlow callable that returns logits.

    Raises:
        TypeError: `attack` is no attack, or `surrogate` no callable of this Keras.
        ValueError: `surrogate` ends in a softmax.

    >>> x = tf.constant([[0.5, 0.5]])
    >>> weights = tf.constant([[1.0, -1.0], [-2.0, 2.0]])
    >>> surrogate, model = lambda x: x @ weights, lambda x: tf.sign(x @ weights)
    >>> Transfer(kr.attacks.FGSM(0.25), surrogate)(model, x, [0]).numpy().tolist()
    [[0.25, 0.75]]
    """

    attack: Attack
    surrogate: typing.Any

    needs_gradient = False

    def __post_init__(self):
        if not isinstance(self.attack, Attack):
            raise TypeError(
                "`attack` must be an attack such as kr.attacks.PGD(eps=0.1), got "
                f"{type(self.attack).__name__}."
            )
        check_logit_model(self.surrogate, "surrogate")

    @property
    def name(self):
        kind = getattr(self.surrogate, "__name__", type(self.surrogate).__name__)
        return f"{self.attack.name} via {getattr(self.surrogate, 'name', kind)}"

    @property
    def eps(self):
        return self.attack.eps

    @property
    def norm(self):
        return self.attack.norm

    @property
    def bounds(self):
        return self.attack.bounds

    @property
    def targeted(self):
        return self.attack.targeted

    @property
    def searches(self):
        return self.attack.searches

    @property
    def _channels_last(self):
        return self.attack._channels_last

    def for_eps_one(self):
        return dataclasses.replace(self, attack=self.attack.for_eps_one())

    def __call__(self, model, x, y, seed=0):
        if not tf.executing_eagerly():
            return super().__call__(model, x, y, seed)
        # The attack is compiled with the surrogate alone: once for all models, and so that
        # two models that stand in for one another do not keep each other alive.
        check_logit_model(model)
        x, y = check_images(x, self.bounds), check_labels(y)
        check_labels(y, check_logits(call_logits(model, x)))
        return self._tried(model, x, self.attack(self.surrogate, x, y, seed), y)

    def run(self, model, x, y, seed, eps):
        return self._tried(model, x, self.attack.run(self.surrogate, x, y, seed, eps), y)

    def _tried(self, model, x, x_adv, y):
        labels = hard_labels(y)

        def reached(images):
            own = tf.argmax(call_logits(model, images), axis=-1, output_type=tf.int32) == labels
            return own if self.targeted else ~own

        kept = reached(x_adv) | (~reached(x) if self.eps is not None else False)
        return choose(kept, x_adv, x)
