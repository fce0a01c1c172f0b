"""Channels that are the same whatever the input: what they are, and what hangs on them."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_robust.compress._surgery_kinds import SEPARABLE, kind_of


class Mixing(NamedTuple):
    """A layer that mixes its inputs, as matrices `(inputs, outputs)`.

    `total` is what an input that is constant in space adds to an output, `used` whether any
    weight leads from the one to the other, `padded` whether zeros beyond the border count.
    """

    total: np.ndarray
    used: np.ndarray
    padded: bool


def mixing(layer) -> Mixing:
    """See `Mixing`; `layer` is a Dense, a convolution or a separable one."""
    weights = [np.asarray(weight, np.float64) for weight in layer.get_weights()]
    total, used = _over_space(weights[0])
    if type(layer).__name__ in SEPARABLE:
        point, leads = _over_space(weights[1])
        point, leads = (m.reshape(*total.shape, -1) for m in (point, leads))
        total = np.einsum("im,imo->io", total, point)
        used = np.any(used[..., None] & leads, axis=1)
    return Mixing(total, used, _padded(layer))


def constants(units) -> dict:
    """Slot -> `(channels,)` float64, the value of each constant channel and NaN for others.

    At inference, and at every place: a channel with a padded border of zeros is constant only
    if it is zero.
    """
    found = {units.graph.input: _open(units.graph.input)}
    for call in units.graph.calls:
        values = [found[slot] for slot in call.inputs]
        kind, _ = kind_of(call)
        made = None if kind == "unknown" else _RULES[kind](call, values)
        for slot in call.outputs:
            unknown = made is None or len(made) != len(units.of[slot])
            found[slot] = _open(slot) if unknown else made
    return found


def added_to_bias(use, values, gone) -> np.ndarray | None:
    """`(outputs,)`: what the removed inputs of a layer gave its outputs, all the time.

    Args:
        use: the `Use` of a mixing layer.
        values: `(inputs,)`, from `constants`.
        gone: `(inputs,)` bool.

    Returns:
        None when there is nothing that a bias can take.
    """
    takes = gone & foldable(use, values) & np.nan_to_num(values).astype(bool)
    if not takes.any() or not use.call.layer.use_bias:
        return None
    return values[takes] @ mixing(use.call.layer).total[takes]


def foldable(use, values) -> np.ndarray:
    """`(inputs,)` bool: which inputs of a mixing layer can go without its outputs changing.

    Those that no weight looks at, those that are zero, and constant ones whose effect is the
    same everywhere, which is left to the bias.
    """
    layer, zero = use.call.layer, values == 0
    effect = mixing(layer)
    useless = ~effect.used.any(axis=1)
    moves = layer.use_bias and not effect.padded and use.calls == 1
    return useless | zero | (np.isfinite(values) & moves)


def _open(slot) -> np.ndarray:
    return np.full((slot.shape[-1] or 0) if slot.shape else 0, np.nan)


def _over_space(kernel) -> tuple[np.ndarray, np.ndarray]:
    axes = tuple(range(kernel.ndim - 2))
    return kernel.sum(axes), np.any(kernel != 0, axes)


def _padded(layer) -> bool:
    size = getattr(layer, "kernel_size", ())
    return any(length > 1 for length in size) and layer.padding != "valid"


def _mix(call, values):
    layer, (given,) = call.layer, values
    effect = mixing(layer)
    steady = np.isfinite(given) & ((given == 0) | (not effect.padded))
    made = np.where(steady, np.nan_to_num(given), 0.0) @ effect.total
    if layer.use_bias:
        made = made + np.asarray(layer.get_weights()[-1], np.float64)
    made[effect.used[~steady].any(axis=0)] = np.nan
    return _activated(layer.activation, made)


def _depthwise(call, values):
    layer = call.layer
    total, used = _over_space(np.asarray(layer.get_weights()[0], np.float64))
    given = values[0][:, None]
    steady = np.isfinite(given) & ((given == 0) | (not _padded(layer)))
    made = np.where(steady, np.nan_to_num(given) * total, np.where(used, np.nan, 0.0)).ravel()
    if layer.use_bias:
        made = made + np.asarray(layer.get_weights()[-1], np.float64)
    return _activated(layer.activation, made)


def _norm(call, values):
    layer, given = call.layer, values[0]
    mean, variance = (np.asarray(w, np.float64) for w in (layer.moving_mean, layer.moving_variance))
    gamma = np.asarray(layer.gamma, np.float64) if layer.scale else np.ones_like(mean)
    beta = np.asarray(layer.beta, np.float64) if layer.center else np.zeros_like(mean)
    made = (given - mean) / np.sqrt(variance + layer.epsilon) * gamma + beta
    return np.where(gamma == 0, beta, made)


def _elementwise(call, values):
    return _activated(call.layer, values[0])


def _activated(function, values):
    """`function` of the constants; NaN stays NaN, whatever it would make of it."""
    if function is None:
        return values
    known = np.isfinite(values)
    given = np.where(known, values, 0.0).astype("float32")[None]
    made = np.asarray(tf.cast(function(tf.constant(given)), tf.float64))[0]
    return np.where(known, made, np.nan)


def _padding(call, values):
    return np.where(values[0] == 0, 0.0, np.nan)


def _flatten(call, values):
    length = call.outputs[0].shape[-1]
    return None if length is None else np.tile(values[0], length // max(len(values[0]), 1))


def _merge(call, values):
    if len({len(value) for value in values}) > 1:
        return None
    stack, kind = np.stack(values), type(call.layer).__name__
    functions = {
        "Add": np.sum,
        "Average": np.mean,
        "Maximum": np.max,
        "Minimum": np.min,
        "Multiply": np.prod,
        "Subtract": lambda s, axis: s[0] - s[1],
    }
    if kind == "Concatenate":  # Along another axis than the channels.
        return np.where(np.all(stack == stack[0], axis=0), stack[0], np.nan)
    made = functions[kind](stack, axis=0)
    # Nothing times a varying number is nothing.
    return np.where(np.any(stack == 0, axis=0), 0.0, made) if kind == "Multiply" else made


def _same(call, values):
    return values[0]


_RULES = {
    "mix": _mix,
    "depthwise": _depthwise,
    "norm": _norm,
    "elementwise": _elementwise,
    "identity": _same,
    "spatial": _same,
    "padding": _padding,
    "flatten": _flatten,
    "reshape": _same,
    "merge": _merge,
    "concatenate": lambda call, values: np.concatenate(values),
}
