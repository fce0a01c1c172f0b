"""The kernels of a model, and what can be counted on them: zeros and distinct values."""

from typing import NamedTuple

import numpy as np

from keras_robust.compress._graph import calls, names_of, plain_layers

_ATTRIBUTES = ("kernel", "depthwise_kernel", "pointwise_kernel", "kernel_in", "kernel_out")


class Kernel(NamedTuple):
    """One kernel: `layer` is the plain layer's name, `codes` its int8 values when quantized."""

    layer: str
    attribute: str
    values: np.ndarray
    codes: np.ndarray | None = None

    @property
    def sparsity(self) -> float:
        """The share of weights that are exactly zero, in [0, 1]."""
        return float(np.mean(self.values == 0))

    @property
    def distinct(self) -> int:
        """How many different values the kernel holds, zero included."""
        return int(np.unique(self.values).size)


def kernels(model) -> dict[tuple[str, str], Kernel]:
    """The kernels of a plain or fake-quantized model, by (layer name, attribute).

    Those of models inside it too, which only tf_keras's recipes flatten. Where these use a name
    twice, the layers are told apart as `PruneNeurons` does, which opens such models.
    """
    found, names = {}, names_of(layer for layer, _, _ in calls(model))
    for layer in plain_layers(model):
        wrapped = hasattr(layer, "_weight_vars") and hasattr(layer, "layer")
        name = names.get(id(layer), layer.name)
        for kernel in _quantized(layer) if wrapped else _plain(layer, name):
            found[kernel.layer, kernel.attribute] = kernel
    return found


def variables_of(layer) -> dict:
    """The variables of either Keras that hold a plain layer's kernels, by attribute."""
    found = {attribute: getattr(layer, attribute, None) for attribute in _ATTRIBUTES}
    return {name: value for name, value in found.items() if hasattr(value, "assign")}


def _plain(layer, name):
    for attribute, value in variables_of(layer).items():
        yield Kernel(name, attribute, np.asarray(value))


def _quantized(wrapper):
    """What the fake quantization of TF-MOT's `QuantizeWrapper` makes of the stored kernels."""
    if not wrapper._weight_vars:  # Left in float.
        yield from _plain(wrapper.layer, wrapper.layer.name)
    for variable, quantizer, ranges in wrapper._weight_vars:
        # Symmetric and narrow: the codes are -127..127 and zero is code 0.
        step = ranges["max_var"].numpy() / 127.0
        fake = quantizer(variable, False, weights=ranges).numpy()
        safe = np.where(step > 0, step, 1.0)
        codes = np.round(fake / safe).astype(np.int8)
        # The stored values are what clustering promised; the zeros are what is shipped.
        values = np.where(codes == 0, 0.0, variable.numpy())
        name = variable.name.partition(":")[0].rpartition("/")[2]
        yield Kernel(wrapper.layer.name, name, values, codes)


def rows(before: dict, after: dict) -> list[dict]:
    """What a stage did, one JSON-ready dict a kernel."""
    table = []
    for key, kernel in after.items():
        old = before.get(key)
        row = {
            "name": kernel.layer,
            "kernel": kernel.attribute,
            "weights": int(kernel.values.size),
            "sparsity_before": None if old is None else old.sparsity,
            "sparsity_after": kernel.sparsity,
            "distinct_before": None if old is None else old.distinct,
            "distinct_after": kernel.distinct,
        }
        if kernel.codes is not None:
            row["int8_values"] = int(np.unique(kernel.codes).size)
        table.append(row)
    return table


def lost_zeros(before: dict, after: dict) -> list[str]:
    """A sentence for each kernel in which weights that were zero no longer are."""
    broken = []
    for key, kernel in after.items():
        old = before.get(key)
        if old is not None and old.values.shape == kernel.values.shape:
            lost = int(np.sum((old.values == 0) & (kernel.values != 0)))
            if lost:
                broken.append(
                    f"layer {kernel.layer!r}: {lost} of {int(np.sum(old.values == 0))} zeros "
                    f"of its {kernel.attribute} were lost"
                )
    return broken
