"""What `Prune` is given, looked at where it enters."""

import math
import numbers

from keras_robust.compress._budget import Budget
from keras_robust.compress._by_layer import values_of


def check_fraction(name, value):
    """`value`, a share of weights."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"`{name}` must be a number in [0, 1), got {value!r}.")
    if not 0 <= value < 1:
        raise ValueError(
            f"`{name}` is the share of weights that become zero and must be in [0, 1), got "
            f"{value}. Write 0.9 for 90%."
        )
    return value


def check_schedule(stage) -> None:
    check_fraction("initial_sparsity", stage.initial_sparsity)
    pairs = stage.sparsity if isinstance(stage.sparsity, tuple) else ((None, stage.sparsity),)
    for name, share in pairs:
        if stage.initial_sparsity > share:
            where = "" if name is None else f" of layer {name!r}"
            raise ValueError(
                f"`initial_sparsity` must not exceed sparsity={share}{where}, got "
                f"{stage.initial_sparsity}."
            )
    check_choice("schedule", stage.schedule, ("polynomial", "constant"))
    if not 0 <= stage.begin < stage.end <= 1:
        raise ValueError(
            "`begin` and `end` are fractions of the training steps with "
            f"0 <= begin < end <= 1, got begin={stage.begin}, end={stage.end}."
        )
    if stage.frequency is not None and (
        not isinstance(stage.frequency, int) or stage.frequency < 1
    ):
        raise ValueError(f"`frequency` must be a whole number >= 1, got {stage.frequency!r}.")
    if not stage.power > 0:
        raise ValueError(f"`power` must be positive, got {stage.power}.")


def check_choice(name, value, choices) -> None:
    if value not in choices:
        raise ValueError(f"`{name}` must be {choices[0]!r} or {choices[1]!r}, got {value!r}.")


def check_pattern(pattern, sparsity) -> tuple[int, int]:
    zeros, group = _two("pattern", pattern, "(2, 4)")
    if not 0 < zeros < group:
        raise ValueError(f"`pattern` (m, n) needs 0 < m < n, got {pattern!r}.")
    for share in values_of(sparsity):
        if not math.isclose(share, zeros / group):
            raise ValueError(
                f"`pattern` {(zeros, group)} makes a sparsity of {zeros / group:g}, but "
                f"sparsity={share} was asked. Write Prune({zeros / group:g}, "
                f"pattern={(zeros, group)})."
            )
    return zeros, group


def check_block(block) -> tuple[int, int]:
    rows, columns = _two("block", block, "(4, 1)")
    if min(rows, columns) < 1 or rows * columns < 2:
        raise ValueError(
            f"`block` (rows, columns) needs at least two weights, got {block!r}. Leave it out to "
            "prune single weights."
        )
    return rows, columns


def check_together(stage) -> None:
    if stage.until is not None and not isinstance(stage.until, Budget):
        raise TypeError(
            f"`until` must be a kr.compress.Budget, got {stage.until!r}. Write "
            "until=kr.compress.Budget(most_loss=0.01)."
        )
    if stage.until is not None and stage.pattern is not None:
        raise ValueError("`until` needs rounds, but a `pattern` has one sparsity only.")
    special = [name for name in ("pattern", "block") if getattr(stage, name) is not None]
    if len(special) == 2:
        raise ValueError("`pattern` and `block` cannot be combined. Leave one of them out.")
    if stage.scope == "global" and (special or isinstance(stage.sparsity, tuple)):
        what = special[0] if special else "a sparsity for each layer"
        raise ValueError(
            f"`scope`='global' is one threshold over single weights and cannot have {what}. "
            "Give one sparsity, or scope='layer'."
        )


def _two(name, value, example) -> tuple[int, int]:
    try:
        first, second = (int(part) for part in value)
    except (TypeError, ValueError):
        raise ValueError(
            f"`{name}` must be two whole numbers such as {example}, got {value!r}."
        ) from None
    return first, second
