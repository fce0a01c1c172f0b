"""Training on adversarial examples of each layer's output."""

import dataclasses
import math
import numbers

import tensorflow as tf

from keras_robust._seed import fold
from keras_robust.attacks import Ascent, DeepFool
from keras_robust.attacks._threat import UNBOUNDED, size
from keras_robust.training._adversarial import AdversarialTraining
from keras_robust.training._pool import Pool
from keras_robust.training._pool_cut import cut_at
from keras_robust.training.objectives import Objective, Outcome


class LayerFeedback(AdversarialTraining):
    """Trains `model` on its batches and on pools of adversarial examples of its layers' outputs.

    Szegedy et al. 2014, https://arxiv.org/abs/1312.6199, section 4. There is a pool for the input
    and for each hidden layer's output. Each step renews some rows of every pool: it takes the
    layer's outputs for the first rows of the batch, and moves them by `attack` against the layers
    above. The loss is that of the batch plus `weight` times the mean over the pools of that of
    rows drawn from them, with the labels they came with; a pool trains the layers above it alone.
    Where the paper alternates between pools, each step draws its share of rows from all: on
    average the same gradient.

    The attack's radius is relative: `eps=0.1` is a tenth of the mean size of the layer's outputs,
    in the attack's norm and over the rows that a step renews. What it makes stays in their range.
    With `DeepFool` the examples are the nearest that are misclassified, as in the paper; XLA cannot
    compile that.

    All else is as in `kr.AdversarialTraining`: the model is trained in place, `save` saves it
    plain, and with `fit(resume=...)` the pools are part of the state. "loss" holds the pools'
    part too; metrics are those of the batch. No robust accuracy is logged without
    `validation_attack`, whose radius is as always in the units of the inputs.

    Args:
        model: functional or built sequential Keras model that returns logits.
        attack: `kr.attacks.DeepFool`, or one that training takes, such as
            `kr.attacks.PGD(eps=0.1, norm="l2", steps=3)`; its `bounds` do not count.
        layers: names of layers, "input" for the input; None is the input and what each other
            layer with a kernel gets.
        pool: rows of each pool, >= 0; 0 is plain training. Under a strategy each replica holds
            its share of them.
        renew: share of a batch's rows that make new examples, in (0, 1].
        weight: of the pools' loss, >= 0; 0 is plain training.
        **kwargs: as for `kr.AdversarialTraining`: validation_attack, attack_dtype, seed, name.

    Raises:
        TypeError: not a Keras model, one of the other Keras, or not such an attack.
        ValueError: a model that ends in softmax or cannot be cut at a layer, a setting out of
            its range, an `eps_ramp`; in `fit`, a pool smaller than what a step renews.

    >>> layers = [keras.layers.Dense(6, "relu", name="hidden"), keras.layers.Dense(3)]
    >>> model = keras.Sequential([keras.Input((4,)), *layers])
    >>> trainer = kr.training.LayerFeedback(model, kr.attacks.PGD(0.1, "l2", steps=2), pool=8)
    >>> trainer.compile("adam", metrics=["accuracy"])
    >>> x, y = np.random.default_rng(0).uniform(size=(8, 4)).astype("float32"), np.arange(8) % 3
    >>> sorted(trainer.fit(x, y, verbose=0).history)
    ['accuracy', 'loss']
    >>> [pool.shape for pool in trainer.pools()["hidden"]]
    [(2, 6), (2,)]
    """

    _needs_attack = False

    def __init__(
        self,
        model,
        attack,
        layers=None,
        *,
        pool=2048,
        renew=0.25,
        weight=1.0,
        **kwargs,
    ):
        if kwargs.get("eps_ramp") is not None:
            raise ValueError("`eps_ramp` must be None: the radius of feedback is not ramped.")
        objective = Feedback(attack, _names(layers), pool, renew, weight)
        super().__init__(model, None, objective, **kwargs)
        objective.cuts = cut_at(model, objective.layers)

    def compile(self, optimizer="adam", loss=None, metrics=None, jit_compile="auto", **kwargs):
        """Configures training, as `kr.AdversarialTraining.compile`."""
        if isinstance(self.objective.attack, DeepFool):
            if jit_compile is True:
                raise ValueError(
                    "`jit_compile` must be False with DeepFool, whose rows rest one by one: XLA "
                    "compiles fixed shapes only. Or give an attack such as "
                    'kr.attacks.PGD(eps=0.1, norm="l2", steps=3).'
                )
            jit_compile = False
        super().compile(optimizer, loss, metrics, jit_compile, **kwargs)

    def pools(self) -> dict:
        """The examples in each pool of the first replica, by layer: `(values, labels)` arrays.

        They are outputs of that layer, `(rows, ...)` float32, and labels as `fit` got them.
        """
        kept = zip(self.objective.cuts, self.objective.pools)
        return {cut.name: pool.arrays() for cut, pool in kept}

    def carried_variables(self):
        return [variable for pool in self.objective.pools for variable in pool.variables()]

    def _create_carried(self, examples, rows):
        objective, strategy = self.objective, self.distribute_strategy
        if objective.pools or not (objective.pool and objective.weight):
            return
        if examples is None:
            raise ValueError(
                "The pools hold labels like those of `fit`, and how many rows a step renews is a "
                "share of its batch: neither can be seen in `x`. Give it arrays or a "
                "tf.data.Dataset."
            )
        replicas = strategy.num_replicas_in_sync
        share = -(-objective.pool // replicas)
        renewed = math.ceil(objective.renew * -(-rows // replicas))
        if share < renewed:
            raise ValueError(
                f"`pool`={objective.pool} is smaller than what a step renews, {renewed} rows on "
                f"each of {replicas} replicas. Make it larger, or `renew` smaller."
            )
        y, objective.renewed = examples[1], renewed
        objective.pools = [
            Pool(strategy, share, cut.shape, y.shape[1:], y.dtype) for cut in objective.cuts
        ]


class Feedback(Objective):
    """What `LayerFeedback` minimises; its settings are explained there.

    Attributes:
        cuts: `Cut` for each layer whose outputs are attacked.
        pools: `Pool` for each cut, made when the size of a batch is known.
        renewed: most rows of a pool that a step renews.
    """

    def __init__(self, attack, layers, pool, renew, weight):
        if not isinstance(attack, (Ascent, DeepFool)):
            raise TypeError(
                "`attack` must be kr.attacks.DeepFool() or one that training takes, for instance "
                f'kr.attacks.PGD(eps=0.1, norm="l2", steps=3), got {attack!r}.'
            )
        whole = isinstance(pool, numbers.Integral) and not isinstance(pool, bool)
        if not whole or pool < 0:
            raise ValueError(f"`pool` must be a whole number >= 0, got pool={pool!r}.")
        if not (isinstance(renew, numbers.Real) and 0 < renew <= 1):
            raise ValueError(f"`renew` must be in (0, 1], got renew={renew!r}.")
        if not (isinstance(weight, numbers.Real) and 0 <= weight < math.inf):
            raise ValueError(f"`weight` must be a finite number >= 0, got weight={weight!r}.")
        self.attack, self.layers = attack, layers
        self.pool, self.renew, self.weight = pool, renew, weight
        self.cuts, self.pools, self.renewed = [], [], 0

    def __repr__(self):
        # Runs are told apart by this.
        names = [cut.name for cut in self.cuts]
        return (
            f"Feedback(attack={self.attack!r}, layers={names}, pool={self.pool}, "
            f"renew={self.renew}, weight={self.weight})"
        )

    def perturb(self, step, x, y):
        """Renews the pools; what it returns, and the step trains on, is the batch."""
        own, labels, made = x[: self.renewed], y[: self.renewed], []
        for number, (cut, pool) in enumerate(zip(self.cuts, self.pools)):
            values = own if cut.below is None else cut.below(own, training=False)
            seed = fold(step.seed, number)
            values = tf.cast(values, tf.float32)
            made.append(adversarial_outputs(self.attack, cut.above, values, labels, seed))
            pool.write(made[-1], labels)
        # The gradients of the layers below a cut do not depend on its pool, and TensorFlow's
        # optimizer of graphs loses sight of weights that must be read for it before they move.
        with tf.control_dependencies(made):
            return tf.identity(x)

    def minimise(self, step, x, x_adv, y, sample_weight):
        logits = step.model(x_adv, training=True)
        loss = step.compiled_loss(y, logits, sample_weight)
        for number, (cut, pool) in enumerate(zip(self.cuts, self.pools)):
            rows = -(-tf.shape(x)[0] // len(self.pools))
            values, labels = pool.draw(rows, fold(step.seed, -1 - number))
            # No gradient flows from a pool to the layers below. What layers add to the loss
            # counts once, with the batch.
            found = step.compiled_loss(labels, cut.above(values, training=True), None)
            found -= tf.cast(step.added, found.dtype)  # That of logits in tf_keras.
            loss += self.weight / len(self.pools) * tf.cast(found, loss.dtype)
        return Outcome(loss, logits, logits)


def adversarial_outputs(attack, above, values, y, seed) -> tf.Tensor:
    """A layer's outputs, moved by `attack` against the layers above it.

    Args:
        attack: its radius is in units of the mean size of a row; its bounds do not count.
        above: model from the layer's outputs to the logits.
        values: `(batch, ...)` float32 outputs.
        y: `(batch,)` or `(batch, classes)` labels.
        seed: int32 `(2,)`.

    Returns:
        The shape of `values`, in their range.
    """
    low, high = tf.reduce_min(values), tf.reduce_max(values)
    unit = tf.reduce_mean(size(values, attack.norm))
    unit = tf.where(unit > 0, unit, 1.0)

    def in_range(scaled):
        return tf.clip_by_value(scaled * unit, low, high)

    def logits(scaled):
        return above(in_range(scaled), training=False)

    # The range of a layer's outputs is that of the batch, not that of the attack's inputs.
    attack = dataclasses.replace(attack, bounds=UNBOUNDED)
    attack = attack.for_training() if isinstance(attack, Ascent) else attack
    radius = math.inf if attack.eps is None else attack.eps
    return tf.stop_gradient(in_range(attack.run(logits, values / unit, y, seed, radius)))


def _names(layers) -> tuple[str, ...] | None:
    if layers is None:
        return None
    if isinstance(layers, str) or not isinstance(layers, (list, tuple)) or not layers:
        raise ValueError(
            f"`layers` must be None or a list of names such as ['input', 'dense'], got {layers!r}."
        )
    return tuple(getattr(layer, "name", layer) for layer in layers)
