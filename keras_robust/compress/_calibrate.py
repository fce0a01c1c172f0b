"""Sets the ranges of a fake-quantized model from data, before it is trained."""

import math

import numpy as np
import tensorflow as tf

from keras_robust._checks import check_images
from keras_robust.compress._inputs import check_one_input

RULES = ("mean", "percentile", "mse")
# What "percentile" leaves out at each end, in percent.
_TAIL = 0.01
# Values of a batch that "percentile" and "mse" look at.
_MOST = 50_000
_STEPS = 255
_BATCH = 32
# Parts of the extremes that "mse" tries.
_SHRUNK = np.linspace(0.2, 1.0, 81)


def calibration_batches(x, model) -> tf.data.Dataset:
    """`x` as batches of inputs that `model` takes.

    Raises:
        TypeError, ValueError: inputs of another shape, none, values that are not finite, a data
            set that never ends or gives labels too.
    """
    if not isinstance(x, tf.data.Dataset):
        x = check_images(x)
        check_one_input(x.shape, model)
        return tf.data.Dataset.from_tensor_slices(x).batch(_BATCH)
    if not isinstance(x.element_spec, tf.TensorSpec):
        raise TypeError(
            "`x` must be a tf.data.Dataset of inputs alone, got elements "
            f"{x.element_spec}. From (x, y): dataset.map(lambda x, y: x)."
        )
    if x.element_spec.shape.rank == len(model.inputs[0].shape) - 1:
        raise ValueError("`x` is not batched. Write x.batch(32).")
    check_one_input(x.element_spec.shape, model)
    if int(x.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise ValueError("`x` never ends. Bound it, for instance x.take(10).")
    first = next(iter(x.take(1)), None)
    if first is None:
        raise ValueError("`x` is empty. Give at least one batch.")
    check_images(first)
    return x


def calibrate(model, batches: tf.data.Dataset, rule: str = "mean") -> None:
    """Sets each activation's range by what `batches` make of it.

    By "mean" it is the mean over the batches of the batch's own range; by "percentile" that of
    a batch without the outermost 0.01% at either end; by "mse" the part of the extremes seen
    that int8 rounds with the smallest mean squared error, what lies outside included.

    TF-MOT starts each range at [-6, 6] and moves it by a thousandth of the difference a
    step: after the few hundred steps of a fine-tune most of [-6, 6] would still be there, and
    seven eighths of the int8 values wasted on an activation in [0, 1]. Ranges of inputs are
    the extremes seen. Weight ranges are those of the weights.

    Args:
        model: what `quantize_apply` returned; its range variables are assigned.
        batches: inputs, batched, a few batches.
        rule: "mean", "percentile" or "mse".
    """
    settle_weights(model)
    watched = []
    for layer in model.layers:
        watched += _watch(layer)
    for watcher in watched:
        watcher.rule = rule
    try:
        for x in batches:
            model(x, training=False)
    finally:
        for watcher in watched:
            watcher.restore()
    for watcher in watched:
        watcher.assign()


def settle_weights(model) -> None:
    """Brings the stored kernels and their ranges up to what the last training step left.

    The kernel that TF-MOT keeps is the one from before the last step where it preserves
    clusters, and is masked only when used where it preserves zeros.
    """
    for layer in model.layers:
        for variable, quantizer, state in getattr(layer, "_weight_vars", ()):
            if "sparsity_mask" in state:
                variable.assign(variable * state["sparsity_mask"])
            quantizer(variable, True, weights=state)


class _Watcher:
    """Stands in for a quantizer, notes the range of what passes, and lets it pass."""

    def __init__(self, quantizer, state, restore, extremes=False):
        self.quantizer = quantizer
        self.state = state
        self.restore = restore
        self.extremes = extremes
        self.rule = "mean"
        self.low, self.high, self.seen = [], [], []

    def __call__(self, inputs, training, weights, **kwargs):
        values = np.asarray(inputs).reshape(-1)
        self.low.append(float(values.min()))
        self.high.append(float(values.max()))
        if self.rule != "mean" and not self.extremes:
            self.seen.append(sample(values))
        return inputs

    def assign(self):
        if not self.low:
            return
        low, high = self._range()
        # TFLite needs zero inside the range, and a range of no width is none.
        low, high = min(low, 0.0), max(high, 0.0)
        if high - low < 1e-6:
            high = low + 1e-3
        self.state["min_var"].assign(low)
        self.state["max_var"].assign(high)

    def _range(self):
        if self.extremes:
            return min(self.low), max(self.high)
        if self.rule == "percentile":
            ends = [np.percentile(values, [_TAIL, 100 - _TAIL]) for values in self.seen]
            return np.mean(ends, axis=0)
        if self.rule == "mse":
            return least_error(np.concatenate([*self.seen, [min(self.low), max(self.high)]]))
        return sum(self.low) / len(self.low), sum(self.high) / len(self.high)


def sample(values):
    """At most 50,000 of a flat array, evenly spread over every axis that it had.

    A step that shares a factor with the number of channels would leave some of them out.
    """
    step = -(-values.size // _MOST)
    while math.gcd(step, values.size) > 1:
        step += 1
    return values[::step]


def least_error(values) -> tuple[float, float]:
    """The range, a part of the extremes of `values` and zero, that int8 rounds them best in."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if high == low:
        return low, high

    def error(share):
        step = share * (high - low) / _STEPS
        codes = np.clip(np.round(values / step), round(share * low / step), None)
        codes = np.minimum(codes, np.round(share * low / step) + _STEPS)
        return float(np.mean(np.square(codes * step - values)))

    best = min(_SHRUNK, key=error)
    return best * low, best * high


def _watch(layer) -> list[_Watcher]:
    """Puts watchers into one layer of TF-MOT's; each knows how to take itself out again."""
    watchers = []
    if getattr(layer, "quantizer", None) is not None and hasattr(layer, "quantizer_vars"):
        watchers.append(
            _Watcher(layer.quantizer, layer.quantizer_vars, _undo(layer), extremes=True)
        )
        layer.quantizer = watchers[-1]
    if getattr(layer, "_output_quantizers", None):
        original = layer._output_quantizers

        def restore(layer=layer, original=original):
            layer._output_quantizers = original

        watchers.append(_Watcher(original[0], layer._output_quantizer_vars, restore))
        layer._output_quantizers = [watchers[-1]]
    for activation in getattr(layer, "_quantize_activations", ()):
        places = [
            getattr(activation, name)
            for name in ("_pre_activation_vars", "_post_activation_vars")
            if hasattr(activation, name)
        ]
        if places:
            watchers += _watch_activation(activation, places)
    return watchers


def _watch_activation(activation, places) -> list[_Watcher]:
    # One quantizer serves before and after the activation: told apart by their variables.
    undo = _undo(activation)
    watchers = [_Watcher(activation.quantizer, place, undo) for place in places]
    by_variable = {id(watcher.state["min_var"]): watcher for watcher in watchers}

    def dispatch(inputs, training, weights, **kwargs):
        return by_variable[id(weights["min_var"])](inputs, training, weights)

    activation.quantizer = dispatch
    return watchers


def _undo(holder):
    original = holder.quantizer

    def restore():
        holder.quantizer = original

    return restore
