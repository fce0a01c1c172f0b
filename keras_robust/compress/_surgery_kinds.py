"""What surgery knows of each layer: how its output channels come from its input channels."""

import numpy as np

from keras_robust._keras import keras

# How a layer treats the last axis. "mix": each output channel is a sum over all inputs, and
# its units can be removed; the other kinds hand channels on.
MIX = ("Dense", "Conv1D", "Conv2D", "Conv3D", "SeparableConv1D", "SeparableConv2D")
SEPARABLE = ("SeparableConv1D", "SeparableConv2D")
DEPTHWISE = ("DepthwiseConv1D", "DepthwiseConv2D")
ELEMENTWISE = ("Activation", "ReLU", "LeakyReLU", "ELU", "Rescaling")
IDENTITY = (
    "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianNoise",
    "GaussianDropout", "AlphaDropout", "ActivityRegularization", "Identity",
)  # fmt: skip
SPATIAL = (
    "MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "AveragePooling1D", "AveragePooling2D",
    "AveragePooling3D", "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D",
    "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D", "Cropping1D",
    "Cropping2D", "Cropping3D", "UpSampling1D", "UpSampling2D", "UpSampling3D",
)  # fmt: skip
PADDING = ("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D")
MERGE = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")
# Functions of one number; a softmax, and what is unknown, looks at several channels.
_ELEMENTWISE_FUNCTIONS = {
    "linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "sigmoid", "hard_sigmoid",
    "tanh", "hard_tanh", "gelu", "silu", "swish", "hard_silu", "hard_swish", "softplus",
    "softsign", "exponential", "mish", "log_sigmoid",
}  # fmt: skip


def kind_of(call) -> tuple[str, str]:
    """The kind of a call, and why it is "unknown" where it is.

    Kinds: "mix", "depthwise", "norm", "elementwise", "identity", "spatial", "padding",
    "flatten", "reshape", "merge", "concatenate", "unknown".
    """
    layer, name = call.layer, type(call.layer).__name__
    if getattr(keras.layers, name, None) is not type(layer):
        return "unknown", f"surgery knows no layer of type {name}"
    if getattr(layer, "data_format", None) == "channels_first":
        return "unknown", "its channels come first"
    if getattr(layer, "axis", None) is not None and not _is_last(layer.axis, call):
        # Along another axis than the channels.
        return ("merge", "") if name == "Concatenate" else ("unknown", "its axis is not the last")
    if not _elementwise(getattr(layer, "activation", None)):
        return "unknown", f"its activation {_name(layer.activation)} is not elementwise"
    if name in MIX or name in DEPTHWISE:
        return _convolution(layer, name)
    if name == "Rescaling" and (np.ndim(layer.scale) or np.ndim(layer.offset)):
        return "unknown", "it scales each channel by its own number"
    if any(length not in (None, 1) for length in tuple(getattr(layer, "noise_shape", None) or ())):
        return "unknown", "its noise has a shape of its own"
    kinds = {
        "norm": ("BatchNormalization",),
        "elementwise": ELEMENTWISE,
        "identity": IDENTITY,
        "spatial": SPATIAL,
        "padding": PADDING,
        "merge": MERGE,
        "concatenate": ("Concatenate",),
        "flatten": ("Flatten",),
        "reshape": ("Reshape",),
    }
    for kind, names in kinds.items():
        if name in names:
            return kind, ""
    return "unknown", f"surgery knows no layer of type {name}"


def activation_of(layer):
    """Name of the nonlinear function that `layer` ends in, None where it has none."""
    kind = type(layer).__name__
    if kind == "ReLU":
        return "leaky_relu" if float(layer.negative_slope or 0) else "relu"
    if kind in ("LeakyReLU", "PReLU", "ELU", "Softmax"):
        return kind
    name = _name(getattr(layer, "activation", None))
    return None if name == "linear" else name


def weights_expected(layer) -> int:
    """How many weights a layer of kind "mix" or "depthwise" has, when it is a plain one."""
    return (2 if type(layer).__name__ in SEPARABLE else 1) + bool(layer.use_bias)


def _convolution(layer, name) -> tuple[str, str]:
    if getattr(layer, "groups", 1) != 1 and name not in DEPTHWISE:
        return "unknown", f"it convolves in {layer.groups} groups"
    if len(layer.weights) != weights_expected(layer) or getattr(layer, "quantization_mode", None):
        return "unknown", "its weights are quantized or adapted"
    return ("depthwise" if name in DEPTHWISE else "mix"), ""


def _is_last(axis, call) -> bool:
    axes = [axis] if isinstance(axis, int) else list(axis)
    return len(axes) == 1 and axes[0] in (-1, len(call.inputs[0].shape) - 1)


def _name(function) -> str:
    return "linear" if function is None else getattr(function, "__name__", str(function))


def _elementwise(function) -> bool:
    return _name(function) in _ELEMENTWISE_FUNCTIONS
