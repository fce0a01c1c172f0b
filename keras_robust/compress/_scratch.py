"""What the pruned architecture learns from random weights, beside what pruning kept."""

import math
from dataclasses import dataclass

import numpy as np

from keras_robust._checks import check_logit_model
from keras_robust.compress._flops import count
from keras_robust.compress._graph import plain_layers
from keras_robust.compress._kernels import variables_of
from keras_robust.compress._masks import (
    check_copied,
    copy_of,
    find_kernels,
    fresh_copy,
    put_masks,
    value_of,
)
from keras_robust.compress._seeds import seeded
from keras_robust.compress._trainer import check_whole, trainers_for


@dataclass(frozen=True)
class ScratchBudget:
    """Epochs of training from scratch.

    Attributes:
        scratch_e: as many epochs as the full model had.
        scratch_b: as many as cost the full model's multiply-adds.
        ratio: multiply-adds of the full model over those of the pruned one.
    """

    scratch_e: int
    scratch_b: int
    ratio: float


@dataclass(frozen=True)
class ScratchRow:
    """One line of `scratch_baselines`: its name, epochs, what `evaluate` said, and the model."""

    name: str
    epochs: int
    measured: dict
    model: object


def scratch_budget(full, pruned, epochs: int, *, zeros: bool = False) -> ScratchBudget:
    """Epochs to train a pruned architecture from scratch: Scratch-E and Scratch-B.

    Liu, Sun, Zhou, Huang and Darrell 2019, https://arxiv.org/abs/1810.05270: Scratch-B has
    `int(epochs * multiply_adds(full) / multiply_adds(pruned))` epochs.

    Args:
        full, pruned: models, or their multiply-adds.
        epochs: that the full model was trained for.
        zeros: do not count the products with weights of `pruned` that are zero.

    Raises:
        TypeError, ValueError: models that cannot be counted, or a number out of its range.

    >>> scratch_budget(313_000_000, 206_000_000, 160)
    ScratchBudget(scratch_e=160, scratch_b=243, ratio=1.5194174757281553)
    """
    check_whole("epochs", epochs, 1)
    ratio = _multiply_adds(full, "full", False) / _multiply_adds(pruned, "pruned", zeros)
    return ScratchBudget(epochs, int(epochs * ratio), ratio)


def scratch_baselines(
    full,
    pruned,
    train_ds,
    validation_data,
    *,
    epochs: int,
    keep_zeros: bool = False,
    fine_tune=None,
    optimizer=None,
    verbose: int = 0,
    seed: int = 0,
) -> list[ScratchRow]:
    """Trains the architecture of a pruned model from random weights, twice, beside the model.

    If Scratch-E or Scratch-B does as well as what was pruned and fine-tuned, the architecture
    was what pruning found, not the weights (Liu et al. 2019, https://arxiv.org/abs/1810.05270).
    Models are left as they are; works in either Keras.

    Args:
        full: the model before pruning, for its multiply-adds.
        pruned: pruned and fine-tuned; the architecture to train.
        train_ds, validation_data: `tf.data.Dataset` of (x, y) batches, as for `Recipe.run`: they
            are read once an epoch, and must end.
        epochs: that the full model was trained for.
        keep_zeros: the architecture is the pattern of zeros of `pruned`: random weights where it
            has weights, and products with zeros are not counted. False where units were removed.
        fine_tune: `m -> trainer`, as the full model was trained; None for `m` itself, with Adam.
        optimizer: what an uncompiled trainer gets instead; copied.
        verbose: as for `fit`.
        seed: of the random weights and everything else.

    Returns:
        Rows "fine-tuned", "Scratch-E", "Scratch-B"; `scratch_table(rows)` prints them.

    Raises:
        TypeError, ValueError: an argument that does not fit, or a `pruned` as large as `full`.
    """
    for model in (full, pruned):
        check_logit_model(model)
        check_copied(model)
    budget = scratch_budget(full, pruned, epochs, zeros=keep_zeros)
    if budget.ratio <= 1.0 + 1e-9:
        raise ValueError(
            "`pruned` takes as many multiply-adds as `full`. Where pruning set weights to zero "
            "and removed no units, say keep_zeros=True."
        )
    make = trainers_for(train_ds, validation_data, fine_tune, optimizer, pruned)
    with seeded(seed):
        measured = _measure(make(copy_of(pruned)), validation_data)
    rows = [ScratchRow("fine-tuned", 0, measured, pruned)]
    for number, (name, length) in enumerate(
        (("Scratch-E", budget.scratch_e), ("Scratch-B", budget.scratch_b))
    ):
        with seeded(seed + number):
            model = fresh_copy(pruned, seed + number)
            if keep_zeros:
                kernels = find_kernels(pruned)
                put_masks(model, {layer: value_of(v) != 0 for layer, v in kernels.items()})
            trainer = make(model)
            trainer.fit(train_ds, epochs=length, verbose=verbose, shuffle=False)
            rows.append(ScratchRow(name, length, _measure(trainer, validation_data), model))
    return rows


def scratch_table(rows: list[ScratchRow]) -> str:
    """The rows of `scratch_baselines` as a table to print."""
    names = sorted(rows[0].measured)
    lines = ["  ".join([f"{'':10}", "epochs", *(f"{name:>15}" for name in names)])]
    for row in rows:
        cells = (f"{row.measured[name]:15.4f}" for name in names)
        lines.append("  ".join([f"{row.name:10}", f"{row.epochs:6d}", *cells]))
    return "\n".join(lines)


def _measure(trainer, data) -> dict:
    found = trainer.evaluate(data, verbose=0, return_dict=True)
    return {name: float(value) for name, value in found.items()}


def _multiply_adds(model, argument: str, zeros: bool) -> float:
    if isinstance(model, (int, float)) and not isinstance(model, bool):
        if not model > 0 or not math.isfinite(model):
            raise ValueError(f"`{argument}` has multiply-adds > 0, got {model!r}.")
        return model
    found = count(model)
    if not zeros:
        return found.multiply_adds
    pruned = {id(variable) for variable in find_kernels(model).values()}
    shares = {}
    for layer in plain_layers(model):
        kernels = variables_of(layer).values()
        gone = [np.sum(value_of(v) == 0) for v in kernels if id(v) in pruned]
        if gone:  # The other kernel of a separable layer is left whole.
            shares[layer.name] = 1 - sum(gone) / sum(math.prod(v.shape) for v in kernels)
    return sum(row["multiply_adds"] * shares.get(row["layer"], 1.0) for row in found.layers)
