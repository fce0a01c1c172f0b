"""Adversarial weight perturbation: a flat loss around the weights too."""

import contextlib
import dataclasses

import tensorflow as tf

from keras_robust import losses
from keras_robust._replicas import share_of_replica, sum_over_replicas
from keras_robust.training.objectives._madry import Madry
from keras_robust.training.objectives._objective import (
    Objective,
    Wrapping,
    check_inner,
    check_weight,
)

# Rounding to float16 would lose small gradients, and only their direction counts.
_SCALE = 128.0


@dataclasses.dataclass(frozen=True)
class AWP(Wrapping):
    """Another objective, its gradient taken where the weights are worst nearby.

    Wu et al. 2020, https://arxiv.org/abs/2004.05884, eq. 7 to 10, one step. Each kernel (a
    weight of two axes or more) moves by `gamma` times its own length along the gradient of the
    objective, the gradient for the step is taken there, and the weights are put back exactly
    before the step. The pass that finds the direction is in inference mode: it moves no
    BatchNorm statistics. The compiled metrics are those at the moved weights.

    Attributes:
        gamma: how far a kernel moves in units of its length, >= 0; the paper uses 0.005 to
            0.01. At 0 it is `inner`.
        inner: the objective; any that takes one step on each batch.

    Raises:
        TypeError: `inner` is no objective.
        ValueError: negative `gamma`, an `inner` with replays; in `fit`, a model with layers whose
            weights are being clustered.

    >>> AWP(gamma=0.01)
    AWP(gamma=0.01, inner=Madry())
    """

    gamma: float = 0.005
    inner: Objective = Madry()

    def __post_init__(self):
        check_weight(self, "gamma")
        check_inner(self.inner, "AWP")

    def perturb(self, step, x, y):
        return self.inner.perturb(step, x, y)

    def minimise(self, step, x, x_adv, y, sample_weight):
        if self.gamma == 0:
            return self.inner.minimise(step, x, x_adv, y, sample_weight)
        _check_layers(step.model)
        kernels = [w for w in step.model.trainable_variables if len(w.shape) > 1]
        calm = dataclasses.replace(step, model=_Inference(step.model))
        with tf.GradientTape() as tape:
            loss = _SCALE * self.inner.minimise(calm, x, x_adv, y, sample_weight).loss
        gradients = _over_replicas(tape.gradient(loss, kernels), share_of_replica(x))
        moved = [self._moved(w, g) for w, g in zip(kernels, gradients)]
        with _placed(kernels, moved):
            return self.inner.minimise(step, x, x_adv, y, sample_weight)

    def _moved(self, weight, gradient):
        weight = tf.convert_to_tensor(weight)
        if gradient is None:
            return weight
        gradient = tf.convert_to_tensor(gradient)  # That of an embedding comes in slices.
        gradient = tf.where(tf.math.is_finite(gradient), gradient, 0.0)
        return weight + self.gamma * tf.norm(weight) * losses.unit_rows(gradient[None])[0]


def _check_layers(model):
    """Raises `ValueError` for layers whose kernels no weight of two axes moves."""
    layers = getattr(model, "_flatten_layers", list)()
    clustered = [layer.name for layer in layers if hasattr(layer, "cluster_centroids")]
    if clustered:
        raise ValueError(
            f"AWP cannot move the kernels of clustered layers, here {clustered[:3]}: they are "
            "computed from their centroids. Use its inner objective while clusters are trained."
        )


class _Inference:
    """A model that is called in inference mode whatever is asked for."""

    def __init__(self, model):
        self.model = model

    def __call__(self, x, training=False):
        return self.model(x, training=False)


@contextlib.contextmanager
def _placed(weights, values):
    """`weights` hold `values` inside, and afterwards, to the bit, what they held before."""
    kept = [tf.convert_to_tensor(weight) for weight in weights]
    try:
        _assign(weights, values)
        yield
    finally:
        _assign(weights, kept)


def _over_replicas(gradients, share):
    """Those of the global batch, so that the weights of all replicas move alike."""
    if tf.distribute.get_replica_context().num_replicas_in_sync == 1:
        return gradients
    known = [share * tf.convert_to_tensor(g) for g in gradients if g is not None]
    summed = iter(sum_over_replicas(known))
    return [None if g is None else next(summed) for g in gradients]


def _assign(weights, values):
    """Sets `weights`, which one replica alone may not, to what is the same on all."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        for weight, value in zip(weights, values):
            weight.assign(value)
        return
    variables = [_variable(weight) for weight in weights]

    def assign(strategy, values):
        for variable, value in zip(variables, values):
            strategy.extended.update(variable, lambda v, new: v.assign(new), args=(value,))

    context.merge_call(assign, args=(values,))


def _variable(weight) -> tf.Variable:
    """TensorFlow's variable, which Keras 3 wraps."""
    return weight if isinstance(weight, tf.Variable) else weight.value
