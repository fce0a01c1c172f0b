"""Magnitude pruning on a schedule, by TF-MOT's wrappers."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from keras_robust._keras import keras, require_legacy
from keras_robust.compress._flatten import clone
from keras_robust.compress._stage import (
    Context,
    copy_by_name,
    freeze_layers,
    replace_layers,
    select,
)
from keras_robust.compress._tfmot import prune_registry, tfmot

_UPDATES = 20
_KERNELS = (
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "Conv2DTranspose",
    "Conv3DTranspose",
    "SeparableConv1D",
    "SeparableConv2D",
    "Dense",
)


@dataclass(frozen=True)
class Prune:
    """Sets the smallest weights of each kernel to zero while the model trains.

    Zhu and Gupta 2017, https://arxiv.org/abs/1710.01878: the sparsity of a kernel rises from
    `initial_sparsity` to `sparsity` as `s + (s0 - s) (1 - t)^power` while `t` goes from 0 to 1
    between `begin` and `end`. Biases and BatchNormalization are left alone, and so are
    DepthwiseConv2D kernels, which TF-MOT does not prune. The last layer is pruned too; give
    `layers=lambda layer: layer.name != "logits"` to spare one.

    Args:
        sparsity: share of zeros of each kernel at the end, in [0, 1).
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
        layers: names, or a function layer -> bool; None for every convolution and Dense.

    Raises:
        ValueError, TypeError: an argument out of its range.

    >>> Prune(0.9).sparsity
    0.9
    """

    sparsity: float
    schedule: str = "polynomial"
    initial_sparsity: float = 0.0
    begin: float = 0.0
    end: float = 0.7
    frequency: int | None = None
    power: float = 3
    pattern: tuple[int, int] | None = None
    layers: Any = None

    name: ClassVar[str] = "pruned"
    verb: ClassVar[str] = "prune"
    learning_rate: ClassVar[float] = 1e-3

    def __post_init__(self):
        require_legacy("kr.compress.Prune")
        _fraction("sparsity", self.sparsity)
        _fraction("initial_sparsity", self.initial_sparsity)
        if self.initial_sparsity > self.sparsity:
            raise ValueError(
                f"`initial_sparsity` must not exceed sparsity={self.sparsity}, got "
                f"{self.initial_sparsity}."
            )
        if self.schedule not in ("polynomial", "constant"):
            raise ValueError(
                f"`schedule` must be 'polynomial' or 'constant', got {self.schedule!r}."
            )
        if not 0 <= self.begin < self.end <= 1:
            raise ValueError(
                "`begin` and `end` are fractions of the training steps with "
                f"0 <= begin < end <= 1, got begin={self.begin}, end={self.end}."
            )
        if self.frequency is not None and (
            not isinstance(self.frequency, int) or self.frequency < 1
        ):
            raise ValueError(f"`frequency` must be a whole number >= 1, got {self.frequency!r}.")
        if not self.power > 0:
            raise ValueError(f"`power` must be positive, got {self.power}.")
        object.__setattr__(self, "layers", freeze_layers(self.layers))
        if self.pattern is not None:
            object.__setattr__(self, "pattern", _pattern(self.pattern, self.sparsity))

    def check(self, model, context: Context) -> list[str]:
        """The names of the layers that would be pruned; raises when there is none."""
        return select(model, self.layers, self._default, self._possible, "prune")

    def _possible(self, layer) -> bool:
        if hasattr(layer, "get_prunable_weights"):
            return bool(layer.get_prunable_weights())
        registry = prune_registry()
        if not registry.supports(layer) or not layer.weights:
            return False
        if self.pattern is not None and type(layer).__name__ not in ("Conv2D", "Dense"):
            return False
        return bool(registry._LAYERS_WEIGHTS_MAP.get(type(layer)))

    def _default(self, layer) -> bool:
        custom = hasattr(layer, "get_prunable_weights")
        return self._possible(layer) and (custom or type(layer).__name__ in _KERNELS)

    def wrap(self, model, context: Context):
        """A copy of the flat `model` whose kernels TF-MOT prunes while it trains."""
        sparsity = tfmot().sparsity.keras
        chosen = set(self.check(model, context))
        schedule = self._schedule(sparsity, context.epochs * context.steps)

        def make(layer):
            if layer.name not in chosen:
                return layer
            return sparsity.prune_low_magnitude(
                layer, pruning_schedule=schedule, sparsity_m_by_n=self.pattern
            )

        return replace_layers(clone(model), make)

    def _schedule(self, sparsity, total: int):
        begin = min(math.floor(self.begin * total), total - 1)
        end = min(max(math.ceil(self.end * total), begin + 1), total)
        if self.schedule == "constant":
            # Counted from 1: a schedule that begins at step 0 would miss its first turn.
            begin, end = max(begin, 1), max(end, 1)
        span = end - begin
        frequency = min(self.frequency or max(1, span // _UPDATES), max(span, 1))
        # TF-MOT updates at begin + k * frequency only, so the end must be one of these.
        end = begin + (span // frequency) * frequency
        if self.schedule == "constant":
            return sparsity.ConstantSparsity(self.sparsity, begin, end, frequency)
        return sparsity.PolynomialDecay(
            self.initial_sparsity, self.sparsity, begin, end, self.power, frequency
        )

    def callbacks(self, wrapped, context: Context) -> list:
        """The callback that tells TF-MOT's wrappers the training step."""
        return [_step_callback(_wrappers(wrapped), context.steps)]

    def strip(self, wrapped, model):
        """A plain copy of the flat `model` with the pruned weights of `wrapped`."""
        layers = {layer.name: layer for layer in wrapped.layers}
        for wrapper in _wrappers(wrapped):
            wrapper.pruning_obj.weight_mask_op()
            layers[wrapper.layer.name] = wrapper.layer
        plain = clone(model)
        copy_by_name(layers, plain)
        return plain

    def broken(self, before: dict, after: dict, layers: list[str], context) -> list[str]:
        """A sentence for each kernel that is not as sparse as promised."""
        sentences = []
        for kernel in after.values():
            if kernel.layer not in layers or kernel.attribute == "depthwise_kernel":
                continue
            if self.pattern is not None:
                groups = _bad_groups(kernel.values, self.pattern)
                if groups:
                    sentences.append(
                        f"layer {kernel.layer!r}: {groups} groups break the pattern {self.pattern}"
                    )
                continue
            size = kernel.values.size
            zeros = int(np.sum(kernel.values == 0))
            # TF-MOT rounds, and always keeps one weight.
            wanted = size - max(round(size * (1 - self.sparsity)), 1)
            if zeros < wanted - 1:
                sentences.append(
                    f"layer {kernel.layer!r}: {zeros} of {size} weights are zero, sparsity "
                    f"{self.sparsity} asks for {wanted}"
                )
        return sentences


def _wrappers(model) -> list:
    return [layer for layer in model.layers if type(layer).__name__ == "PruneLowMagnitude"]


def _step_callback(wrappers, steps):
    class PruningSteps(keras.callbacks.Callback):
        """Sets the step of each wrapper, whoever trains it and however often it is called.

        TF-MOT's own callback sets it once and lets each call of the layer in training mode
        add one: an objective that calls the model twice a step would run the schedule at
        double speed. It also looks for the wrappers in the model that is fitted, which need
        not be the wrapped one.
        """

        def on_train_begin(self, logs=None):
            self._epoch = 0

        def on_epoch_begin(self, epoch, logs=None):
            self._epoch = epoch

        def on_train_batch_begin(self, batch, logs=None):
            for wrapper in wrappers:
                wrapper.pruning_step.assign(self._epoch * steps + batch)

        def on_epoch_end(self, epoch, logs=None):
            for wrapper in wrappers:
                wrapper.pruning_obj.weight_mask_op()

    return PruningSteps()


def _fraction(name, value):
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"`{name}` must be a number in [0, 1), got {value!r}.")
    if not 0 <= value < 1:
        raise ValueError(
            f"`{name}` is the share of weights that become zero and must be in [0, 1), got "
            f"{value}. Write 0.9 for 90%."
        )


def _pattern(pattern, sparsity):
    try:
        zeros, group = (int(part) for part in pattern)
    except (TypeError, ValueError):
        raise ValueError(
            f"`pattern` must be two whole numbers such as (2, 4), got {pattern!r}."
        ) from None
    if not 0 < zeros < group:
        raise ValueError(f"`pattern` (m, n) needs 0 < m < n, got {pattern!r}.")
    if not math.isclose(sparsity, zeros / group):
        raise ValueError(
            f"`pattern` {(zeros, group)} makes a sparsity of {zeros / group:g}, but sparsity="
            f"{sparsity} was asked. Write Prune({zeros / group:g}, pattern={(zeros, group)})."
        )
    return zeros, group


def _bad_groups(values, pattern) -> int:
    zeros, group = pattern
    rows = np.moveaxis(values, -2, -1).reshape(-1, values.shape[-2])
    rows = np.pad(rows, [(0, 0), (0, -rows.shape[1] % group)])
    kept = np.count_nonzero(rows.reshape(-1, group), axis=-1)
    return int(np.sum(kept > group - zeros))
