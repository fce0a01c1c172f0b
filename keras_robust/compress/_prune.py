"""Magnitude pruning on a schedule: by TF-MOT's wrappers or by masks."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from keras_robust._keras import LEGACY
from keras_robust.compress._budget import budget_callback
from keras_robust.compress._by_layer import settle_by_layer, value_for
from keras_robust.compress._flatten import clone
from keras_robust.compress._magnitude import (
    bad_groups,
    block_mask,
    global_masks,
    kept,
    layer_mask,
    pattern_mask,
    zero_blocks,
)
from keras_robust.compress._masks import (
    KINDS,
    copy_of,
    find_kernels,
    value_of,
)
from keras_robust.compress._prune_checks import (
    check_block,
    check_choice,
    check_fraction,
    check_pattern,
    check_schedule,
    check_together,
)
from keras_robust.compress._prune_steps import mask_callback, masked_copy, step_callback
from keras_robust.compress._stage import (
    Context,
    check_factored,
    copy_by_name,
    replace_layers,
    select,
)
from keras_robust.compress._tfmot import prune_registry, tfmot

_UPDATES = 20


@dataclass(frozen=True)
class Prune:
    """Sets the smallest weights of each kernel to zero while the model trains.

    Zhu and Gupta 2017, https://arxiv.org/abs/1710.01878: the sparsity of a kernel rises from
    `initial_sparsity` to `sparsity` as `s + (s0 - s) (1 - t)^power` while `t` goes from 0 to 1
    between `begin` and `end`. Biases and BatchNormalization are left alone, and so are
    DepthwiseConv2D kernels, which TF-MOT does not prune. The last layer is pruned too; give
    `layers=lambda layer: layer.name != "logits"` to spare one.

    Under tf_keras TF-MOT's wrappers do it. Under Keras 3, with `scope="global"` and with `until`,
    which TF-MOT does not have, masks on the kernels of plain layers do.

    Args:
        sparsity: share of zeros at the end, in [0, 1): of each kernel, or of all together with
            `scope="global"`; or a dict with the share of each layer by its name, other
            layers are left alone.
        schedule: "polynomial", or "constant" for the full sparsity from `begin` on.
        initial_sparsity: where the polynomial schedule starts, in [0, sparsity].
        begin, end: when, in fractions of the stage's training steps, 0 <= begin < end <= 1.
            The rest of the steps trains with a fixed mask.
        frequency: training steps from one update of the masks to the next; None for about 20
            updates.
        power: exponent of the polynomial schedule.
        pattern: None, or `(m, n)`: in every group of `n` weights along the input channels
            at least `m` are zero, such as (2, 4), which some hardware runs faster. The masks
            are then chosen once, at the first step, and `sparsity` must be `m / n`.
        layers: names, or a function layer -> bool; None for every convolution and Dense. A
            LowRankDense or LowRankConv2D has to be left out.
        scope: "layer": each kernel loses its own smallest weights. "global": one threshold
            over all kernels, so that layers which need their weights keep more of them; each
            keeps at least one.
        block: None, or `(rows, columns)`: the matrices of Dense layers lose whole blocks,
            those with the smallest pooled magnitude.
        block_pooling: "average" or "max" of the magnitudes in a block.
        until: `Budget`: prune in rounds, and stop before the damage is larger than it says;
            `sparsity` is then the most, and the schedule plays no part.

    Raises:
        ValueError, TypeError: an argument out of its range.

    >>> Prune(0.9).sparsity
    0.9
    >>> Prune({"dense1": 0.92, "logits": 0.74}).layers
    ('dense1', 'logits')
    """

    sparsity: Any
    schedule: str = "polynomial"
    initial_sparsity: float = 0.0
    begin: float = 0.0
    end: float = 0.7
    frequency: int | None = None
    power: float = 3
    pattern: tuple[int, int] | None = None
    layers: Any = None
    scope: str = "layer"
    block: tuple[int, int] | None = None
    block_pooling: str = "average"
    until: Any = None

    name: ClassVar[str] = "pruned"
    verb: ClassVar[str] = "prune"
    learning_rate: ClassVar[float] = 1e-3

    def __post_init__(self):
        settle_by_layer(self, "sparsity", check_fraction)
        check_schedule(self)
        check_choice("scope", self.scope, ("layer", "global"))
        check_choice("block_pooling", self.block_pooling, ("average", "max"))
        if self.pattern is not None:
            object.__setattr__(self, "pattern", check_pattern(self.pattern, self.sparsity))
        if self.block is not None:
            object.__setattr__(self, "block", check_block(self.block))
        check_together(self)

    def check(self, model, context: Context) -> list[str]:
        """The names of the layers that would be pruned; raises when there is none."""
        if self.until is not None:
            self.until.check(context)
        if self._own_masks:
            return list(self.kernels(model))
        if self.pattern is self.block is None:
            check_factored(model, self.layers, "Prune", "prune")
        return select(model, self.layers, self._default, self._possible, "prune")

    def _possible(self, layer) -> bool:
        if hasattr(layer, "get_prunable_weights"):
            return bool(layer.get_prunable_weights())
        registry = prune_registry()
        if not registry.supports(layer) or not layer.weights:
            return False
        if self.pattern is not None and type(layer).__name__ not in ("Conv2D", "Dense"):
            return False
        if self.block is not None and type(layer).__name__ != "Dense":
            return False
        return bool(registry._LAYERS_WEIGHTS_MAP.get(type(layer)))

    def _default(self, layer) -> bool:
        custom = hasattr(layer, "get_prunable_weights")
        return self._possible(layer) and (custom or type(layer).__name__ in KINDS)

    def _share(self, name: str) -> float:
        return value_for(self.sparsity, name)

    def wrap(self, model, context: Context):
        """A copy of the flat `model` whose kernels lose weights while it trains."""
        names = self.check(model, context)
        if self._own_masks:
            return masked_copy(model, names)
        sparsity = tfmot().sparsity.keras
        chosen = set(names)

        def make(layer):
            if layer.name not in chosen:
                return layer
            schedule = self._schedule(
                sparsity, context.epochs * context.steps, self._share(layer.name)
            )
            pooling = "AVG" if self.block_pooling == "average" else "MAX"
            return sparsity.prune_low_magnitude(
                layer,
                pruning_schedule=schedule,
                block_size=self.block or (1, 1),
                block_pooling_type=pooling,
                sparsity_m_by_n=self.pattern,
            )

        return replace_layers(clone(model), make)

    @property
    def _own_masks(self) -> bool:
        return not LEGACY or self.scope == "global" or self.until is not None

    def _times(self, total: int) -> tuple[int, int, int]:
        """First and last training step that updates the masks, and the steps between two."""
        begin = min(math.floor(self.begin * total), total - 1)
        end = min(max(math.ceil(self.end * total), begin + 1), total)
        if self.schedule == "constant":
            # Counted from 1: a schedule that begins at step 0 would miss its first turn.
            begin, end = max(begin, 1), max(end, 1)
        span = end - begin
        frequency = min(self.frequency or max(1, span // _UPDATES), max(span, 1))
        # TF-MOT updates at begin + k * frequency only, so the end must be one of these.
        return begin, begin + (span // frequency) * frequency, frequency

    def _schedule(self, sparsity, total: int, share=None):
        share = self.sparsity if share is None else share
        begin, end, frequency = self._times(total)
        if self.schedule == "constant":
            return sparsity.ConstantSparsity(share, begin, end, frequency)
        return sparsity.PolynomialDecay(
            self.initial_sparsity, share, begin, end, self.power, frequency
        )

    def share_at(self, step: int, total: int):
        """Share at the end -> share at a training step, None where masks stay as they are."""
        if self.pattern is not None:
            return (lambda share: share) if step == 0 else None
        begin, end, frequency = self._times(total)
        if not begin <= step <= end or (step - begin) % frequency:
            return None
        past = 1.0 if self.schedule == "constant" else (step - begin) / max(end - begin, 1)
        rest = (1 - past) ** self.power
        return lambda share: share + (self.initial_sparsity - share) * rest

    def callbacks(self, wrapped, context: Context) -> list:
        """The callback that tells the masks the training step."""
        if self.until is not None:
            return [budget_callback(self, wrapped)]
        if self._own_masks:
            return [mask_callback(self, wrapped, context)]
        return [step_callback(_wrappers(wrapped), context.steps)]

    def strip(self, wrapped, model):
        """A plain copy of the flat `model` with the pruned weights of `wrapped`."""
        if self._own_masks:
            return copy_of(wrapped)
        layers = {layer.name: layer for layer in wrapped.layers}
        for wrapper in _wrappers(wrapped):
            wrapper.pruning_obj.weight_mask_op()
            layers[wrapper.layer.name] = wrapper.layer
        plain = clone(model)
        copy_by_name(layers, plain)
        return plain

    def apply(self, model):
        """A copy of `model` pruned at once to the full sparsity, not trained; in either Keras.

        `schedule` and what belongs to it play no part.

        >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(10)])
        >>> pruned = Prune(0.8).apply(model)
        >>> int(np.sum(np.asarray(pruned.layers[-1].kernel) == 0))
        80
        """
        twin = copy_of(model)
        found = self.kernels(twin)
        for name, mask in self.masks(found).items():
            found[name].assign(np.where(mask, value_of(found[name]), 0.0))
        return twin

    def kernels(self, model) -> dict:
        """The variables that `apply` prunes, by layer; of any model, in either Keras."""
        if self.pattern is self.block is None:
            check_factored(model, self.layers, "Prune", "prune")
            return find_kernels(model, self.layers)
        kinds = ("Dense",) if self.block else ("Dense", "Conv2D")
        if isinstance(self.layers, tuple):
            found = find_kernels(model, self.layers)
            wrong = [
                layer.name
                for layer in model._flatten_layers()
                if layer.name in found and type(layer).__name__ not in kinds
            ]
            if wrong:
                raise ValueError(f"`layers` names {wrong}, but only {kinds} have such patterns.")
            return found

        def takes(layer):
            return type(layer).__name__ in kinds and (self.layers is None or self.layers(layer))

        return find_kernels(model, takes)

    def masks(self, kernels: dict, share_of: Callable = lambda share: share) -> dict:
        """Bool masks of the variables `kernels`, by layer, at `share_of` the shares at the end."""
        values = {name: value_of(variable) for name, variable in kernels.items()}
        if self.scope == "global":
            return global_masks(values, share_of(self.sparsity))
        return {
            name: self._mask(value, share_of(self._share(name))) for name, value in values.items()
        }

    def _mask(self, values, share):
        if self.pattern is not None:
            return pattern_mask(values, self.pattern)
        if self.block is not None:
            return block_mask(values, share, self.block, self.block_pooling)
        return layer_mask(values, share)

    def broken(self, before: dict, after: dict, layers: list[str], context) -> list[str]:
        """A sentence for each kernel that is not as sparse as promised."""
        found = [
            kernel
            for kernel in after.values()
            if kernel.layer in layers and kernel.attribute != "depthwise_kernel"
        ]
        if self.until is not None:
            pruned = any(np.any(kernel.values == 0) for kernel in found)
            return [] if pruned else [f"no round stayed inside {self.until}"]
        if self.scope == "global":
            return _missing("all kernels together", found, self.sparsity, len(found))
        sentences = []
        for kernel in found:
            where = f"layer {kernel.layer!r}"
            share = self._share(kernel.layer)
            if self.pattern is not None:
                groups = bad_groups(kernel.values, self.pattern)
                if groups:
                    sentences.append(f"{where}: {groups} groups break the pattern {self.pattern}")
            elif self.block is not None:
                zeros, blocks = zero_blocks(kernel.values, self.block)
                wanted = blocks - kept(blocks, share)
                if zeros < wanted - 1:
                    sentences.append(
                        f"{where}: {zeros} of {blocks} blocks {self.block} are zero, sparsity "
                        f"{share} asks for {wanted}"
                    )
            else:
                sentences += _missing(where, [kernel], share, 1)
        return sentences


def _missing(where, kernels, share, slack) -> list[str]:
    size = sum(kernel.values.size for kernel in kernels)
    zeros = sum(int(np.sum(kernel.values == 0)) for kernel in kernels)
    wanted = size - kept(size, share)
    if zeros >= wanted - slack:
        return []
    return [f"{where}: {zeros} of {size} weights are zero, sparsity {share} asks for {wanted}"]


def _wrappers(model) -> list:
    return [layer for layer in model.layers if type(layer).__name__ == "PruneLowMagnitude"]
