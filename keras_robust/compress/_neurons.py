"""Pruning of whole neurons and channels: a smaller model of the same layers."""

import math
import numbers
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from keras_robust._random_state import keep_random_state
from keras_robust.compress._flatten import clone
from keras_robust.compress._stage import Context, freeze_layers
from keras_robust.compress._surgery import without
from keras_robust.compress._surgery_constants import constants, foldable
from keras_robust.compress._surgery_kinds import kind_of
from keras_robust.compress._surgery_units import Units
from keras_robust.compress._unit_scores import check_score, measure, without_relu


@dataclass(frozen=True)
class PruneNeurons:
    """Removes neurons and channels: the model gets smaller and faster on any device.

    Give one of `amount` and `threshold`. Units that an Add or another layer ties together are
    removed together, and judged by the mean of their scores (see `unit_scores`). Every layer
    keeps at least one unit. Left as they are: what makes the model's input and its output,
    grouped convolutions, and whatever goes into or comes out of a layer that surgery does not
    know (LayerNormalization, attention, recurrent and custom layers, bare operations).
    In a `Recipe` the fine-tuning follows; `apply` alone does not train.

    Args:
        amount: share of each layer's units to remove, in (0, 1); rounded down.
        threshold: "apoz" removes units whose share of zeros lies more than a standard deviation
            above their layer's mean (Hu et al. 2016, https://arxiv.org/abs/1607.03250); a
            number removes those with a share of zeros of at least that, or with a norm of at
            most that.
        score: "apoz", "l1" or "l2", see `unit_scores`.
        layers: names, or a function layer -> bool; None for every layer that can be shrunk.
            For "apoz" None passes over layers without any activation.

    Raises:
        ValueError, TypeError: an argument out of its range.

    >>> sizes = [keras.layers.Dense(n, "relu") for n in (8, 6)]
    >>> model = keras.Sequential([keras.Input((4,)), *sizes, keras.layers.Dense(2)])
    >>> smaller = PruneNeurons(0.5, score="l2").apply(model)
    >>> [layer.units for layer in smaller.layers]
    [4, 3, 2]
    """

    amount: float | None = None
    threshold: float | str | None = None
    score: str = "apoz"
    layers: Any = None

    name: ClassVar[str] = "shrunk"
    verb: ClassVar[str] = "remove units"
    learning_rate: ClassVar[float] = 1e-3

    def __post_init__(self):
        if (self.amount is None) == (self.threshold is None):
            raise ValueError(
                "Give one of `amount` and `threshold`, such as PruneNeurons(0.3) or "
                f'PruneNeurons(threshold="apoz"), got amount={self.amount!r}, '
                f"threshold={self.threshold!r}."
            )
        check_score(self.score)
        if self.amount is not None and not (_number(self.amount) and 0 < self.amount < 1):
            raise ValueError(
                "`amount` is the share of units to remove and must be in (0, 1), got "
                f"{self.amount!r}. Write 0.3 for 30%."
            )
        self._check_threshold()
        object.__setattr__(self, "layers", freeze_layers(self.layers))

    def _check_threshold(self):
        if self.threshold == "apoz" and self.score != "apoz":
            raise ValueError(
                f'threshold="apoz" is a rule for score="apoz", got score={self.score!r}. Give a '
                "number instead."
            )
        if self.threshold not in (None, "apoz"):
            if not _number(self.threshold) or not self.threshold >= 0:
                raise ValueError(
                    f'`threshold` must be "apoz" or a number >= 0, got {self.threshold!r}.'
                )

    @keep_random_state()
    def apply(self, model, x=None):
        """A smaller copy of `model`, not trained any further and not compiled.

        Args:
            model: a built Sequential or functional model, which may hold others; it is left
                as it is.
            x: for score="apoz": inputs `(n, ...)` or a tf.data.Dataset of such batches.

        Returns:
            A model of plain layers: Sequential for a Sequential one without models inside,
            else functional. Where nothing was to be removed, a copy.

        Raises:
            ValueError, TypeError: a model that cannot be taken apart, layers that cannot be
                shrunk, or inputs that do not fit.
        """
        units = Units(model)
        groups = self._groups(units)
        scores = measure(units, self.score, x)
        # The higher, the dearer.
        worth = -scores if self.score == "apoz" else scores
        gone = set()
        for group in groups:
            gone.update(self._chosen(group.units, worth))
        return without(units, spare_last(units, gone, worth))

    def _chosen(self, candidates, worth) -> list[int]:
        values = worth[candidates]
        if self.amount is not None:
            # Not one less because 0.3 * 10 is 3 - 4e-16.
            count = math.floor(self.amount * len(candidates) + 1e-9)
            order = np.argsort(values, kind="stable")
            return candidates[order[:count]].tolist()
        if self.threshold == "apoz":
            chosen = -values > np.mean(-values) + np.std(values)
        else:
            limit = -self.threshold if self.score == "apoz" else self.threshold
            chosen = values <= limit
        return candidates[chosen].tolist()

    def _groups(self, units: Units) -> list["Group"]:
        """The groups of layers to shrink; raises where a named one cannot be."""
        groups = groups_of(units)
        offered = sorted(name for group in groups for name in group.names)
        if self.layers is not None and not callable(self.layers):
            groups = _named(groups, self.layers, units, offered)
        elif callable(self.layers):
            layers = {name: use.call.layer for name, use in units.makers().items()}
            groups = [g for g in groups if all(self.layers(layers[name]) for name in g.names)]
        if self.score == "apoz":
            groups = self._with_relu(groups, units)
        if not groups:
            stays = list(dict.fromkeys(units.fixed.values()))[:4]
            raise ValueError(
                "The model has no layer to remove units from. Layers that surgery can shrink: "
                f"{offered}. What must stay, and why: {'; '.join(stays)}."
            )
        return groups

    def _with_relu(self, groups, units):
        missing, kept = without_relu(units), []
        for group in groups:
            bare = [unit for unit in group.units.tolist() if unit in missing]
            named = {missing[unit] for unit in bare} - {None}
            if bare and (named or not (self.layers is None or callable(self.layers))):
                what = f"activation {sorted(named)[0]!r}" if named else "no activation"
                raise ValueError(
                    f"The units of {group.names} have {what}: only a ReLU makes zeros to count. "
                    'Take score="l1" or "l2", or name other `layers`.'
                )
            left = [unit for unit in group.units.tolist() if unit not in missing]
            if left:
                kept.append(Group(group.names, np.array(left, int)))
        return kept

    def check(self, model, context: Context) -> list[str]:
        """The names of the layers that would be shrunk; raises when there is none."""
        return _Names(self._groups(Units(model)))

    def wrap(self, model, context: Context):
        """The smaller model, to be trained."""
        return self.apply(model, context.batches)

    def callbacks(self, wrapped, context: Context) -> list:
        """None: the model is a plain one."""
        return []

    def strip(self, wrapped, model):
        """A copy of the trained `wrapped`, which is plain already."""
        return clone(wrapped)

    def broken(self, before: dict, after: dict, layers: list[str], context) -> list[str]:
        """A sentence for each group of layers that was to lose a share of its units and lost none.

        `layers` is what `check` returned.
        """
        if self.amount is None:
            return []
        # A depthwise kernel has no units of its own.
        units = {
            key[0]: (before[key].values.shape[-1], kernel.values.shape[-1])
            for key, kernel in after.items()
            if key in before and key[1] != "depthwise_kernel"
        }
        sentences = []
        for names, count in layers.groups:
            sizes = [units[name] for name in names if name in units]
            if math.floor(self.amount * count + 1e-9) and all(old == new for old, new in sizes):
                alone = f"layer {names[0]!r}: still has all of its"
                tied = f"layers {names}: still have all of their"
                sentences.append(f"{alone if len(names) == 1 else tied} {count} units")
        return sentences


@keep_random_state()
def remove_dead(model):
    """A copy of `model` without the units that change no output: same outputs, fewer weights.

    A unit is dead when, at every layer that takes it, its weights are zero or it is zero
    itself whatever the input: not its kernel alone, also the bias and BatchNormalization
    behind it. One that is constant but not zero is dead too where the next layer has a bias
    to take its effect and no zeros are padded. What only dead units needed goes with them.
    Each layer keeps at least one unit. Outputs are the same to float rounding.

    Args:
        model: a built Sequential or functional model, which may hold others; it is left as
            it is.

    Raises:
        ValueError, TypeError: a model that cannot be taken apart.

    >>> layers = [keras.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.Dense(2)]
    >>> model = keras.Sequential(layers)
    >>> model.layers[0].set_weights([np.eye(4, 3), np.array([0.0, 0.0, -2.0])])
    >>> model.layers[1].set_weights([np.array([[1, 1], [0, 0], [1, 1]]), np.zeros(2)])
    >>> [layer.units for layer in remove_dead(model).layers]
    [2, 2]
    """
    while True:
        units = Units(model)
        gone = spare_last(units, dead_units(units), measure(units, "l2"))
        model = without(units, gone)
        if not gone:
            return model


def dead_units(units: Units) -> set[int]:
    """The units that can go without any output changing; see `remove_dead`."""
    values = constants(units)
    dead = {unit for use in units.makers().values() for unit in use.outputs.tolist()}
    dead -= set(units.fixed)
    for call in units.graph.calls:
        if kind_of(call)[0] == "mix":
            use, slot = units.uses[id(call.layer)], call.inputs[0]
            dead -= set(units.of[slot][~foldable(use, values[slot])].tolist())
    return dead


def spare_last(units: Units, gone: set, worth) -> set:
    """`gone` but for the dearest unit of each layer that would lose them all."""
    gone = set(gone)
    for use in units.makers().values():
        ids = use.outputs.tolist()
        if all(unit in gone for unit in ids):
            gone.discard(max(ids, key=lambda unit: worth[unit]))
    return gone


class _Names(list):
    """The names of the layers of some groups, and in `groups` each one's with its units' number."""

    def __init__(self, groups):
        super().__init__(name for group in groups for name in group.names)
        self.groups = [(group.names, len(group.units)) for group in groups]


@dataclass(frozen=True)
class Group:
    """Layers that share units, and the units of them that may be removed."""

    names: list[str]
    units: np.ndarray


def groups_of(units: Units) -> list[Group]:
    """The groups of layers with units that may be removed, in the model's order."""
    groups: list[tuple[list, set]] = []
    for name, use in units.makers().items():
        ids, names = set(use.outputs.tolist()), [name]
        apart = []
        for others, theirs in groups:
            if theirs & ids:
                names, ids = others + names, theirs | ids
            else:
                apart.append((others, theirs))
        groups = [*apart, (names, ids)]
    free = [(names, sorted(ids - set(units.fixed))) for names, ids in groups]
    return [Group(names, np.array(ids, int)) for names, ids in free if ids]


def _named(groups, layers, units, offered) -> list[Group]:
    makers = units.makers()
    known = set(units.graph.names.values())
    for name in layers:
        if name not in known:
            raise ValueError(
                f"`layers` names {name!r}, which the model does not have. Layers that surgery can "
                f"shrink: {offered}."
            )
        if name not in offered:
            whys = [units.fixed[u] for u in makers[name].outputs.tolist()] if name in makers else []
            why = whys[0] if whys else "it starts no units of its own"
            raise ValueError(
                f"`layers` names {name!r}, whose units must stay: {why}. Layers that surgery can "
                f"shrink: {offered}."
            )
    chosen = [group for group in groups if set(group.names) & set(layers)]
    for group in chosen:
        left_out = [name for name in group.names if name not in layers]
        if left_out:
            raise ValueError(
                f"`layers` names some of {group.names}, whose units are added up and can only go "
                f"together. Name {left_out} too, or none of them."
            )
    return chosen


def _number(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
