"""What a model costs: parameters and multiply-adds, layer by layer."""

import math
from dataclasses import dataclass

from keras_robust.compress._graph import calls, check_graph

# Layers without products, or whose products a converter folds into their neighbours.
_FREE = set(
    "InputLayer Flatten Reshape Permute RepeatVector Masking Activation ReLU LeakyReLU PReLU ELU "
    "ThresholdedReLU Softmax Identity Add Subtract Multiply Average Maximum Minimum Concatenate "
    "BatchNormalization LayerNormalization GroupNormalization UnitNormalization Normalization "
    "Rescaling Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D GaussianNoise "
    "GaussianDropout AlphaDropout ActivityRegularization Embedding LowRankVirtual "
    "ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D Cropping3D "
    "UpSampling1D UpSampling2D UpSampling3D MaxPooling1D MaxPooling2D MaxPooling3D "
    "AveragePooling1D AveragePooling2D AveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D "
    "GlobalMaxPooling3D GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D "
    "RandomFlip RandomCrop RandomRotation RandomTranslation RandomZoom RandomContrast "
    "CategoryEncoding Resizing CenterCrop".split()
)
# Weights of more than one axis that every position of the output multiplies once.
_KERNELS = set(
    "Dense BinaryDense LowRankDense Conv1D Conv2D Conv3D DepthwiseConv1D DepthwiseConv2D "
    "SeparableConv1D SeparableConv2D BinaryConv2D BinaryDepthwiseConv2D LowRankConv2D".split()
)
_TRANSPOSED = {"Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"}


@dataclass(frozen=True)
class Count:
    """What `count` found; print it for a table.

    Attributes:
        layers: one dict a layer, in the order of the first call: layer, kind, output (shape
            without the batch), calls, parameters (shared ones once), multiply_adds of one
            input (all calls).
        parameters: of the whole model, moving statistics included.
        multiply_adds: of one input through the whole model.
        unknown: names of the layers whose products are not known, counted as 0; empty unless
            they were allowed.
    """

    layers: list[dict]
    parameters: int
    multiply_adds: int
    unknown: tuple[str, ...] = ()

    def to_dict(self) -> dict:
        """Everything, ready for JSON."""
        return {
            "layers": [dict(row) for row in self.layers],
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "unknown": list(self.unknown),
        }

    def __str__(self) -> str:
        lines = [["layer", "kind", "output", "parameters", "multiply-adds"]]
        for row in self.layers:
            shape = " x ".join(map(str, row["output"]))
            products = "unknown" if row["layer"] in self.unknown else f"{row['multiply_adds']:,}"
            lines.append([row["layer"], row["kind"], shape, f"{row['parameters']:,}", products])
        lines.append(["all", "", "", f"{self.parameters:,}", f"{self.multiply_adds:,}"])
        return aligned(lines, left=3)


def count(model, *, allow_unknown: bool = False) -> Count:
    """Counts the parameters and multiply-adds of a model, layer by layer.

    One multiply-add is one product and its addition, as in Howard et al. 2017 (MobileNets,
    https://arxiv.org/abs/1704.04861): a Dense layer of M x N weights has M N of them, a
    convolution its weights times the positions of its output. Biases, activations, poolings
    and normalisations count as 0; batch normalisations disappear in the convolutions before
    them when a model is converted.

    Args:
        model: functional or built sequential Keras model with a fixed input shape; models
            inside it are opened.
        allow_unknown: counts layers of other kinds as 0 and names them in `unknown`, instead
            of raising.

    Returns:
        A `Count`.

    Raises:
        TypeError: not a Keras model, or one of the other Keras.
        ValueError: a model without a graph of layers, an open shape, or a layer whose
            products are not known; each by name.

    >>> model = keras.Sequential([keras.Input((8, 8, 2)), keras.layers.Conv2D(4, 3)])
    >>> found = count(model)
    >>> found.parameters, found.multiply_adds
    (76, 2592)
    """
    check_graph(model)
    rows, unknown = {}, []
    for layer, given, outputs in calls(model):
        products = _products(layer, given, outputs)
        if products is None:
            unknown.append(layer.name)
        row = rows.setdefault(id(layer), _row(layer, outputs))
        row["calls"] += 1
        row["multiply_adds"] += products or 0
    unknown = tuple(dict.fromkeys(unknown))
    if unknown and not allow_unknown:
        kinds = {row["layer"]: row["kind"] for row in rows.values() if row["layer"] in unknown}
        raise ValueError(
            f"`model` has layers whose multiply-adds are not known: {kinds}. Build them of known "
            "layers, or count them as 0 with allow_unknown=True."
        )
    layers = list(rows.values())
    return Count(layers, model.count_params(), sum(row["multiply_adds"] for row in layers), unknown)


def weight_count(layer) -> int:
    """The numbers in all weights of a layer, 0 for a bare operation."""
    return sum(math.prod(tuple(weight.shape)) for weight in getattr(layer, "weights", ()))


def aligned(lines: list[list[str]], left: int) -> str:
    """A table of `lines`, the first `left` columns to the left and the others to the right."""
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _row(layer, outputs) -> dict:
    return {
        "layer": layer.name,
        "kind": type(layer).__name__,
        "output": list(outputs[0].shape[1:]),
        "calls": 0,
        "parameters": weight_count(layer),
        "multiply_adds": 0,
    }


def _products(layer, given, outputs) -> int | None:
    """The multiply-adds of one call; None where they are not known."""
    kind = type(layer).__name__
    if kind in _FREE:
        return 0
    if kind not in _KERNELS | _TRANSPOSED:
        return None
    # A transposed convolution lays its kernel on every position of the input.
    shape = (given if kind in _TRANSPOSED else outputs)[0].shape[1:]
    last = getattr(layer, "data_format", "channels_last") != "channels_first"
    positions = shape[:-1] if last else shape[1:]
    if None in tuple(positions):
        raise ValueError(
            f"The layer {layer.name!r} has the open shape {tuple(shape)}, and what it costs "
            "depends on the size. Build the model with a fixed input shape."
        )
    return math.prod(positions) * _kernel_size(layer)


def _kernel_size(layer) -> int:
    """The weights of all kernels of a layer: those of more than one axis."""
    shapes = [tuple(weight.shape) for weight in layer.weights]
    return sum(math.prod(shape) for shape in shapes if len(shape) > 1)
