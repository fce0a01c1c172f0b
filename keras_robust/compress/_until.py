"""Prune a little, recover, and stop before the damage: pruning until a budget is spent."""

import inspect
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from keras_robust._checks import check_logit_model
from keras_robust.compress._budget import Budget
from keras_robust.compress._by_layer import values_of
from keras_robust.compress._kernels import variables_of
from keras_robust.compress._logged import check_metric
from keras_robust.compress._masks import copy_of, find_kernels, put_masks, value_of
from keras_robust.compress._prune import Prune
from keras_robust.compress._scores import PruneByScores
from keras_robust.compress._seeds import seeded
from keras_robust.compress._stage import factored
from keras_robust.compress._trainer import check_whole, trainers_for

# Of inputs, to judge units by.
_BATCHES = 20


@dataclass(frozen=True)
class PruneRun:
    """What `prune_until` returns.

    Attributes:
        model: the last model inside the budget, plain; a copy of the one given if there is none.
        reference: the metric of the model given.
        rounds: one dict a round: round, kept (share of the kernels' weights that are not zero,
            of the model given), value (of the metric), inside (the budget), seconds.
        stopped: why: "budget", "sparsity" (the stage's own was reached), "nothing left" or
            "rounds".
        kept_before: share of the kernels' weights that are not zero in the model given.
    """

    model: Any
    reference: float
    rounds: tuple
    stopped: str
    kept_before: float = 1.0

    @property
    def kept(self) -> float:
        """The share of the weights that `model` keeps."""
        inside = [row["kept"] for row in self.rounds if row["inside"]]
        return inside[-1] if inside else self.kept_before

    def to_dict(self) -> dict:
        """Everything but the model, ready for JSON."""
        return {
            "reference": self.reference,
            "rounds": [dict(row) for row in self.rounds],
            "stopped": self.stopped,
            "kept": self.kept,
        }

    def summary(self) -> str:
        """A line a round, to print."""
        lines = [f"{'round':>5}  {'kept %':>7}  {'value':>7}  inside"]
        lines.append(f"{'-':>5}  {100 * self.kept_before:7.2f}  {self.reference:7.4f}")
        for row in self.rounds:
            answer = "yes" if row["inside"] else "no"
            lines.append(
                f"{row['round']:>5}  {100 * row['kept']:7.2f}  {row['value']:7.4f}  {answer}"
            )
        return "\n".join([*lines, f"stopped: {self.stopped}"])


def prune_until(
    model,
    train_ds,
    validation_data,
    *,
    stage=None,
    metric: str = "accuracy",
    most_loss: float = 0.01,
    step: float = 0.2,
    epochs: int = 1,
    rounds: int = 30,
    fine_tune=None,
    optimizer=None,
    verbose: int = 1,
    seed: int = 0,
) -> PruneRun:
    """Prunes in rounds, training after each, and returns the last model inside the budget.

    Each round removes a little, trains `epochs`, and measures; the first round whose metric is
    more than `most_loss` below that of the model given is the last, and is thrown away. Works in
    either Keras, and leaves `model` as it is.

    Args:
        model: a built Sequential or functional model that returns logits.
        train_ds, validation_data: `tf.data.Dataset` of (x, y) batches, as for `Recipe.run`: they
            are read once an epoch, and must end.
        stage: what removes: `Prune(...)`, whose `sparsity` is the most it goes to and whose
            schedule plays no part, or `PruneNeurons(...)` and others with an `apply(model, x)`,
            applied once a round with batches of inputs; default `Prune(0.99)`.
        metric: "accuracy", "robust_accuracy" (with an adversarial trainer), or another that the
            trainer's `evaluate` returns and of which more is better.
        most_loss: how far the metric may fall, as a difference, >= 0: 0.01 is one point.
        step: for `Prune`: share of the weights left that each round takes, in (0, 1).
        epochs: of training after each round.
        rounds: the most there are.
        fine_tune: `m -> trainer`, such as `lambda m: kr.AdversarialTraining(m, attack)`; None
            trains `m` itself. One that is not compiled gets Adam(1e-3), cross-entropy from
            logits, and accuracy.
        optimizer: what an uncompiled trainer gets instead; copied.
        verbose: 0 nothing, 1 a line a round, 2 Keras's bars too.
        seed: of everything random here.

    Returns:
        A `PruneRun`.

    Raises:
        TypeError, ValueError: an argument that does not fit.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> x = np.random.default_rng(0).uniform(size=(60, 4)).astype("float32")
    >>> data = tf.data.Dataset.from_tensor_slices((x, np.argmax(x[:, :3], 1))).batch(20)
    >>> run = prune_until(model, data, data, most_loss=1.0, rounds=2, verbose=0)
    >>> run.stopped, round(run.kept, 3)
    ('rounds', 0.667)
    """
    stage = Prune(0.99) if stage is None else stage
    _check_stage(stage)
    if isinstance(stage, Prune) and stage.pattern is not None:
        raise ValueError("`stage` has a `pattern`, which has one sparsity only. Use a Recipe.")
    budget = Budget(most_loss, metric, step, epochs)
    check_whole("rounds", rounds, 1)
    check_logit_model(model)
    make = trainers_for(train_ds, validation_data, fine_tune, optimizer, model)
    if isinstance(stage, Prune):
        stage.kernels(model)  # Raises where there is none to prune.
    with seeded(seed):
        current = copy_of(model)
        total = _nonzero(current, at_all=True)
        trainer = make(current)
        check_metric(trainer, validation_data, "metric", metric)
        reference = _measure(trainer, validation_data, metric)
        # Its optimizer is not the next one's.
        current, done, stopped = copy_of(model), [], "rounds"
        for number in range(1, rounds + 1):
            start = time.perf_counter()
            at_most = 1 - (1 - step) ** number
            candidate = _pruned(stage, current, at_most, train_ds)
            if _nonzero(candidate) == _nonzero(current):
                if isinstance(stage, Prune) and at_most < max(values_of(stage.sparsity)):
                    continue  # As many were zero before, or the step is less than a weight.
                stopped = "sparsity" if isinstance(stage, Prune) else "nothing left"
                break
            trainer = make(candidate)
            trainer.fit(train_ds, epochs=epochs, verbose=2 if verbose > 1 else 0, shuffle=False)
            value = _measure(trainer, validation_data, metric)
            inside = budget.inside(reference, value)
            done.append(
                {
                    "round": number,
                    "kept": _nonzero(candidate) / total,
                    "value": value,
                    "inside": inside,
                    "seconds": time.perf_counter() - start,
                }
            )
            if verbose:
                print(_line(done[-1], metric, reference), flush=True)
            if not inside:
                stopped = "budget"
                break
            current = candidate
        before = _nonzero(model) / total
        return PruneRun(copy_of(current), reference, tuple(done), stopped, before)


def _check_stage(stage):
    if isinstance(stage, type) or not hasattr(stage, "apply"):
        raise TypeError(f"`stage` must be for instance kr.compress.Prune(0.99), got {stage!r}.")
    if isinstance(stage, Prune):
        return
    try:
        inspect.signature(stage.apply).bind("model", "x")
        fits = not isinstance(stage, PruneByScores)  # It trains, to one sparsity.
    except TypeError:
        fits = False
    if not fits:
        raise TypeError(
            "`stage` must remove a little more on every `apply(model, x)`, as Prune and "
            f"PruneNeurons do, got {stage!r}. Apply this one by itself or in a Recipe."
        )


def _pruned(stage, current, at_most, train_ds):
    """A copy with less; what `Prune` removes stays away in training."""
    if not isinstance(stage, Prune):
        return stage.apply(copy_of(current), train_ds.take(_BATCHES).map(lambda x, *_: x))
    candidate = copy_of(current)
    put_masks(candidate, stage.masks(stage.kernels(candidate), lambda share: min(share, at_most)))
    return candidate


def _nonzero(model, at_all=False) -> int:
    variables = list(find_kernels(model).values())
    for layer in factored(model):
        variables += variables_of(layer).values()
    values = [value_of(variable) for variable in variables]
    return int(sum(value.size if at_all else np.count_nonzero(value) for value in values))


def _measure(trainer, data: tf.data.Dataset, metric) -> float:
    return float(trainer.evaluate(data, verbose=0, return_dict=True)[metric])


def _line(row, metric, reference) -> str:
    return (
        f"round {row['round']}: {100 * row['kept']:.2f}% of the weights kept, {metric} "
        f"{row['value']:.4f} ({reference:.4f} before), "
        f"{'inside' if row['inside'] else 'beyond'} the budget"
    )
