"""Pruning by scores that the loss learns, so that what stays is what robustness needs."""

import math
import numbers
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from keras_robust._checks import check_logit_model
from keras_robust._keras import keras
from keras_robust.compress._by_layer import settle_by_layer, value_for
from keras_robust.compress._magnitude import kept, largest
from keras_robust.compress._masks import constrain, copy_of, find_kernels, value_of
from keras_robust.compress._prune_checks import check_fraction
from keras_robust.compress._seeds import seeded
from keras_robust.compress._stage import Context, check_factored
from keras_robust.compress._trainer import check_batches, check_share, check_whole, trainers_for


@dataclass(frozen=True)
class PruneByScores:
    """Prunes by scores learned with the weights frozen, then trains what is left.

    HYDRA, Sehwag, Wang, Mittal and Jana 2020, https://arxiv.org/abs/2002.10509: each weight w
    has a score s, the kernel is `w * top(|s|)`, and the trainer's loss (adversarial with
    `fine_tune=lambda m: kr.AdversarialTraining(m, attack)`) moves the scores alone, as if top
    were the identity: ds = dL/dkernel * w. Scores start at `sqrt(6 / fan_in) * w / max|w|`, so
    that the first masks are those of magnitude pruning. After `share` of the steps the masks
    are fixed and the weights, biases and BatchNormalization train on.

    Done by constraints of the variables: the kernel holds `w * top(|s|)`, and the optimizer's step
    of the kernel moves the scores, times `w` for SGD, which is exactly its step of the scores
    (momentum turns with a score that crosses zero), or times `sign(w)` for Adam and others that
    divide by the gradient's size, the same but for their epsilon. Weight decay of the optimizer
    would pull on the kernel that it sees: leave it out.

    Args:
        sparsity: share of zeros of each kernel, in [0, 1), or a dict of shares by layer.
        share: of the training steps that learn the scores, in (0, 1).
        rate: factor on the learning rate of the scores, > 0.
        layers: names, or a function layer -> bool; None for every convolution (but depthwise
            ones) and Dense.

    Raises:
        ValueError, TypeError: an argument out of its range.

    >>> PruneByScores(0.99).share
    0.5
    """

    sparsity: Any
    share: float = 0.5
    rate: float = 1.0
    layers: Any = None

    name: ClassVar[str] = "pruned"
    verb: ClassVar[str] = "prune by learned scores"
    learning_rate: ClassVar[float] = 1e-3

    def __post_init__(self):
        settle_by_layer(self, "sparsity", check_fraction)
        check_share("share", self.share)
        number = isinstance(self.rate, numbers.Real) and not isinstance(self.rate, bool)
        if not number or not 0 < self.rate < math.inf:
            raise ValueError(f"`rate` must be > 0 and finite, got {self.rate!r}.")

    def check(self, model, context: Context) -> list[str]:
        """The names of the layers that would be pruned; raises when there is none."""
        check_factored(model, self.layers, "PruneByScores", "prune")
        return list(find_kernels(model, self.layers))

    def wrap(self, model, context: Context):
        """A copy of `model` whose training moves scores first and weights then."""
        twin = copy_of(model)
        found = find_kernels(twin, self.layers)
        phase = Phase()
        constrained = set()
        turned = {
            id(getattr(layer, "kernel", None))
            for layer in twin._flatten_layers()
            if type(layer).__name__.endswith("Transpose")
        }
        for name, variable in found.items():
            share = self._share(name)
            scored = Scored(variable, share, self.rate, phase, id(variable) in turned)
            constrain(variable, scored)
            variable.assign(scored.kernel())
            constrained.add(id(variable))
        for variable in twin.trainable_variables:
            if id(variable) not in constrained:
                constrain(variable, Frozen(variable, phase))
        return twin

    def _share(self, name: str) -> float:
        return value_for(self.sparsity, name)

    def callbacks(self, wrapped, context: Context) -> list:
        """The callback that fixes the masks when the scores are learned."""
        return [_phase_callback(wrapped, context, self.share)]

    def strip(self, wrapped, model):
        """A plain copy of the trained `wrapped`."""
        return copy_of(wrapped)

    def broken(self, before: dict, after: dict, layers: list[str], context) -> list[str]:
        """A sentence for each kernel that is not as sparse as promised."""
        sentences = []
        for kernel in after.values():
            if kernel.layer not in layers or kernel.attribute == "depthwise_kernel":
                continue
            size, share = kernel.values.size, self._share(kernel.layer)
            zeros, wanted = int(np.sum(kernel.values == 0)), size - kept(size, share)
            if zeros < wanted:
                sentences.append(
                    f"layer {kernel.layer!r}: {zeros} of {size} weights are zero, sparsity "
                    f"{share} asks for {wanted}"
                )
        return sentences

    def apply(
        self,
        model,
        train_ds,
        *,
        epochs: int = 2,
        fine_tune=None,
        optimizer=None,
        validation_data=None,
        verbose: int = 0,
        seed: int = 0,
    ):
        """A pruned copy of `model`, scores learned and weights trained on; in either Keras.

        Args:
            model: a built Sequential or functional model that returns logits, trained.
            train_ds: `tf.data.Dataset` of (x, y) batches.
            epochs: of scores and weights together.
            fine_tune, optimizer: as for `Recipe.run`.
            validation_data: handed to `fit`.
            verbose: as for `fit`.
            seed: of everything random here.
        """
        check_logit_model(model)
        check_whole("epochs", epochs, 1)
        data = train_ds if validation_data is None else validation_data
        make = trainers_for(train_ds, data, fine_tune, optimizer)
        check_factored(model, self.layers, "PruneByScores", "prune")
        with seeded(seed):
            context = Context(epochs, count_batches(train_ds))
            wrapped = self.wrap(model, context)
            make(wrapped, self.learning_rate).fit(
                train_ds,
                epochs=epochs,
                validation_data=validation_data,
                callbacks=self.callbacks(wrapped, context),
                verbose=verbose,
                shuffle=False,
            )
            return self.strip(wrapped, model)


def count_batches(dataset) -> int:
    """How many batches a dataset has; raises `ValueError` for an endless one."""
    check_batches(dataset, "train_ds")
    steps = int(dataset.cardinality())
    if steps == tf.data.INFINITE_CARDINALITY:
        raise ValueError("`train_ds` never ends. Bound it, for instance train_ds.take(1000).")
    if steps == tf.data.UNKNOWN_CARDINALITY:
        steps = int(dataset.reduce(0, lambda count, *_: count + 1))
    return steps


class Phase:
    """Which half of the training it is, and how the optimizer scales its steps."""

    def __init__(self):
        self.tuning = tf.Variable(False, trainable=False, name="tuning")
        self.linear = tf.Variable(True, trainable=False, name="linear")


class Frozen:
    """The constraint of a variable that keeps its value until the masks are fixed."""

    def __init__(self, variable, phase):
        self.own = variable.constraint
        self.value = tf.Variable(value_of(variable), trainable=False, name="frozen")
        self.phase = phase

    def __call__(self, value):
        value = tf.convert_to_tensor(value)
        trained = _held(self.own, value)
        return tf.where(self.phase.tuning, trained, tf.cast(self.value, value.dtype))


class Scored:
    """The constraint of a kernel: its update moves the scores, or what the masks leave of it."""

    def __init__(self, variable, sparsity, rate, phase, turned=False):
        weights = value_of(variable).astype("float32")
        scores = initial_scores(weights, turned)
        self.own = variable.constraint
        self.kept = kept(weights.size, sparsity)
        self.rate = rate
        self.phase = phase
        self.weights = tf.Variable(weights, trainable=False, name="weights")
        self.scores = tf.Variable(scores, trainable=False, name="scores")
        mask = largest(scores, self.kept).astype("float32")
        self.mask = tf.Variable(mask, trainable=False, name="mask")

    def kernel(self):
        return self.weights * self.mask

    def __call__(self, value):
        value = tf.convert_to_tensor(value)
        new = tf.cast(value, tf.float32)
        kernel = tf.cond(
            self.phase.tuning,
            lambda: _held(self.own, new) * self.mask,
            lambda: self._learn(new),
        )
        return tf.cast(kernel, value.dtype)

    def _learn(self, new):
        weights, scores = tf.convert_to_tensor(self.weights), tf.convert_to_tensor(self.scores)
        step = new - weights * self.mask
        factor = tf.where(self.phase.linear, weights, tf.sign(weights))
        # The mask goes by |s|, whose slope is the sign of s.
        side = tf.where(scores >= 0, 1.0, -1.0)
        scores += self.rate * side * factor * step
        mask = top(tf.abs(scores), self.kept)
        self.scores.assign(scores)
        self.mask.assign(mask)
        return weights * mask


def _held(own, value) -> tf.Tensor:
    """`value` as the user's constraint leaves it, where there is one."""
    return value if own is None else tf.convert_to_tensor(own(value))


def top(values, count: int) -> tf.Tensor:
    """Ones at the `count` largest of `values`, zeros elsewhere; of equal ones the first."""
    flat = tf.reshape(values, [-1])
    index = tf.math.top_k(flat, count).indices[:, None]
    ones = tf.scatter_nd(index, tf.ones([count]), [flat.shape[0]])
    return tf.reshape(ones, values.shape)


def initial_scores(weights, turned=False) -> np.ndarray:
    """`sqrt(6 / fan_in) * w / max|w|`, float32; HYDRA's scaled initialisation.

    `turned`: of a transposed convolution, whose kernel has its outputs before its inputs.
    """
    fan_in = weights.size // weights.shape[-2 if turned else -1]
    largest_weight = np.max(np.abs(weights))
    scale = 0.0 if largest_weight == 0 else math.sqrt(6 / fan_in) / largest_weight
    return (scale * weights).astype("float32")


def _phase_callback(wrapped, context, share):
    phases = {
        id(v.constraint.phase): v.constraint.phase
        for v in wrapped.trainable_variables
        if isinstance(v.constraint, Scored)
    }
    turn = min(
        max(round(share * context.epochs * context.steps), 1), context.epochs * context.steps
    )

    class Phases(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self._epoch = 0
            optimizer = self.model.optimizer
            optimizer = getattr(optimizer, "inner_optimizer", optimizer)
            for phase in phases.values():
                phase.tuning.assign(False)
                # SGD's step is linear in the gradient; the others divide by its size.
                phase.linear.assign(isinstance(optimizer, keras.optimizers.SGD))

        def on_epoch_begin(self, epoch, logs=None):
            self._epoch = epoch

        def on_train_batch_begin(self, batch, logs=None):
            if self._epoch * context.steps + batch >= turn:
                for phase in phases.values():
                    phase.tuning.assign(True)

    return Phases()
