"""Ensemble adversarial training: examples made for other networks."""

import dataclasses
import typing

import tensorflow as tf

from keras_robust._checks import check_logit_model
from keras_robust._seed import split, uniform
from keras_robust.training.objectives._madry import Madry
from keras_robust.training.objectives._objective import Objective, Wrapping, check_inner


@dataclasses.dataclass(frozen=True)
class Ensemble(Wrapping):
    """Another objective, its examples made for a network drawn anew in each step.

    Tramer et al. 2018, https://arxiv.org/abs/1705.07204, section 3.4. Examples made for fixed
    other networks do not depend on the weights under training, which so cannot learn to hide
    their gradient from the attack. Under a strategy each replica draws for itself.

    Attributes:
        models: fixed models (or callables of TensorFlow operations) that return logits.
        own: whether the network under training is drawn too, as one more of them.
        inner: the objective that finds and uses the examples; Mixed() is the paper's.

    Raises:
        TypeError: one of the other Keras, or `inner` is no objective.
        ValueError: no model, one that ends in softmax, an `inner` with replays.

    >>> fixed = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="fixed")
    >>> Ensemble([fixed])
    Ensemble(models=['fixed'], own=True, inner=Madry())
    """

    models: typing.Any
    own: bool = True
    inner: Objective = Madry()

    def __post_init__(self):
        check_inner(self.inner, "Ensemble")
        if not isinstance(self.models, (list, tuple)) or not self.models:
            raise ValueError(f"`models` must be a list of models, got models={self.models!r}.")
        for index, model in enumerate(self.models):
            check_logit_model(model, f"models[{index}]")
        object.__setattr__(self, "models", tuple(self.models))

    def __repr__(self):
        # A model's own repr may hold its address, and runs are told apart by this.
        names = [getattr(model, "name", type(model).__name__) for model in self.models]
        return f"Ensemble(models={names}, own={self.own}, inner={self.inner!r})"

    def perturb(self, step, x, y):
        draw, seed = split(step.seed)
        sources = [*([step.model] if self.own else []), *self.models]

        def made_for(source):
            drawn = dataclasses.replace(step, model=source, seed=seed)
            return lambda: tf.ensure_shape(self.inner.perturb(drawn, x, y), x.shape)

        index = tf.cast(uniform([], draw) * len(sources), tf.int32)
        return tf.switch_case(index, [made_for(source) for source in sources])

    def minimise(self, step, x, x_adv, y, sample_weight):
        return self.inner.minimise(step, x, x_adv, y, sample_weight)
