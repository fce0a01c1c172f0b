"""What validation attacks with, and the metrics of it."""

import tensorflow as tf

from keras_robust._checks import assert_in_bounds, check_labels
from keras_robust._keras import keras
from keras_robust._seed import as_seed, fold
from keras_robust.attacks import Ascent
from keras_robust.attacks._attack import call_logits
from keras_robust.layers._state import mean_if_any


class Validation:
    """The attacks of validation, each with a metric of its own where there are several.

    Args:
        attacks: None, an attack, or dict name -> attack; all with the same bounds.
        trained: whether training attacks, and so feeds `worst` too.

    Raises:
        TypeError: something that is no attack, or a name that is no string.
        ValueError: an empty dict, an empty name, or attacks of several bounds.

    Attributes:
        attacks: list of attacks, empty without any.
        worst: metric of what is right clean and under all of them; None where nothing attacks.
        each: the metrics of what is right clean and under each one, empty for a single attack.
    """

    # Kept in an object, Keras does not find them: training has nothing to say in their names.

    def __init__(self, attacks, trained: bool):
        named = _check_named(attacks) if isinstance(attacks, dict) else {}
        self.attacks = [*named.values()] or [attacks] * (attacks is not None)
        for attack in self.attacks:
            check_type(attack, Ascent, "validation_attack", "kr.attacks.PGD(eps=0.1)")
            if attack.bounds != self.bounds:
                raise ValueError(
                    "`validation_attack` must hold attacks on the same range of inputs, got bounds="
                    f"{self.bounds} and {attack.bounds}."
                )
        self.each = [mean_if_any(keras, f"robust_accuracy_{name}") for name in named]
        self.worst = mean_if_any(keras, "robust_accuracy") if trained or self.attacks else None

    @property
    def bounds(self):
        """The range of inputs, None where there is no attack to know it."""
        return self.attacks[0].bounds if self.attacks else None

    def update(self, model, x, y, logits, seed: int) -> tf.Tensor | None:
        """Feeds `each`; `(batch,)` bool of what is right clean and under all attacks."""
        if not self.attacks:
            return None
        assert_in_bounds(x, self.bounds)
        first = fold(as_seed(seed), -1)
        clean = worst = correct(logits, y)
        for number, attack in enumerate(self.attacks):
            x_adv = attack(model, x, y, fold(first, number) if number else first)
            right = clean & correct(call_logits(model, x_adv), y)
            worst = worst & right
            if self.each:
                self.each[number].update_state(tf.cast(right, tf.float32))
        return worst


def correct(logits, y) -> tf.Tensor:
    """`(batch,)` bool: whether the largest logit is the label's."""
    y = check_labels(y)
    y = y if y.shape.rank == 1 else tf.argmax(y, axis=-1, output_type=tf.int32)
    return tf.argmax(logits, axis=-1, output_type=tf.int32) == y


def check_type(value, kind, argument: str, example: str):
    """Raises a TypeError unless `value` is of `kind`."""
    if not isinstance(value, kind):
        raise TypeError(f"`{argument}` must be for instance {example}, got {value!r}.")


def _check_named(attacks: dict) -> dict:
    example = "{'pgd': kr.attacks.PGD(eps=0.1)}"
    if not attacks:
        raise ValueError(f"`validation_attack` is an empty dict. Give for instance {example}.")
    for name in attacks:
        check_type(name, str, "validation_attack", example)
        if not name:
            raise ValueError(f"`validation_attack` must name its attacks, such as {example}.")
    return attacks
