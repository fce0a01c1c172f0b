"""How each layer of a flat model is quantized, as far as TF-MOT can."""

from keras_robust._keras import keras
from keras_robust.compress._tfmot import tfmot
from keras_robust.layers import LowRankVirtual

# Activations that TF-MOT can fake-quantize inside a layer with weights.
_ACTIVATIONS = ("linear", "relu", "softmax", "sigmoid", "tanh", "swish", "gelu")
_OWN_OUTPUT = ("relu", "relu6", "swish", "gelu", "linear", "softmax", "sigmoid", "tanh")
# Layers without kernels that TF-MOT refuses, and whose output has a range of its own.
_OUTPUT_ONLY = (
    "Rescaling",
    "Normalization",
    "Multiply",
    "Subtract",
    "Average",
    "ELU",
    "ThresholdedReLU",
    "AveragePooling3D",
)
# Kernels that TF-MOT treats together with a BatchNormalization behind them.
_WITH_NORM = ("Conv2D", "DepthwiseConv2D", "Dense", "SeparableConv1D", "SeparableConv2D")


def quantize_configs() -> dict:
    """TF-MOT's configs by the names that `treatment_of` gives them."""
    tfmot()
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_configs as module,
    )

    return {
        "output": module.Default8BitOutputQuantizeConfig,
        "nothing": module.NoOpQuantizeConfig,
    }


def _registry():
    tfmot()
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_registry as module,
    )

    return module.Default8BitQuantizeRegistry()


def treatment_of(layer) -> str | None:
    """How a layer of a flat model is quantized.

    "default" is TF-MOT's own config, "output" rounds only the output, "nothing" rounds
    nothing because a later layer does, None leaves the layer out.

    Raises:
        ValueError: a layer that TF-MOT cannot quantize; named, with the fix.
    """
    if isinstance(layer, keras.layers.InputLayer | LowRankVirtual):
        return None
    kind = type(layer).__name__
    check_called_once(layer)
    if kind in ("BatchNormalization", "SyncBatchNormalization"):
        if _follows_kernel(layer):
            return "default"
        # As in ResNetV2: rounding before a ReLU would spend half the codes on nothing.
        return "nothing" if _before_relu(layer) else "output"
    if kind == "Activation":
        name = getattr(layer.activation, "__name__", "")
        return "default" if name in _OWN_OUTPUT else "output"
    if kind in ("SeparableConv1D", "SeparableConv2D") or _registry().supports(layer):
        activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
        if layer.weights and activation not in _ACTIVATIONS:
            raise ValueError(
                f"The layer {layer.name!r} ({kind}) has the activation {activation!r}, which "
                f"TF-MOT cannot quantize inside a layer; it can {_ACTIVATIONS}. Make it a layer "
                f"of its own: {kind}(...) without activation, then Activation({activation!r}), or "
                f"leave it in float: Quantize(float_layers=[{layer.name!r}])."
            )
        return "default"
    if kind in _OUTPUT_ONLY:
        return "output"
    if layer.weights:
        raise ValueError(
            f"The layer {layer.name!r} ({kind}) has weights that TF-MOT cannot quantize to int8. "
            "Replace it (Conv2D, DepthwiseConv2D, Conv2DTranspose, SeparableConv2D, Dense and "
            f"BatchNormalization can), leave it in float: Quantize(float_layers=[{layer.name!r}]), "
            "or leave Quantize out of the recipe and let kr.export.tflite quantize after training."
        )
    return None


def check_called_once(layer) -> None:
    """Raises `ValueError` where a layer with weights is called several times."""
    if layer.weights and len(layer.inbound_nodes) > 1:
        raise ValueError(
            f"The layer {layer.name!r} ({type(layer).__name__}) is called "
            f"{len(layer.inbound_nodes)} times, and TF-MOT cannot quantize a layer with weights "
            "that is shared. Give each call a layer of its own, or leave Quantize out of the "
            "recipe."
        )


def passes_on(layer) -> bool:
    """Whether a layer without weights gives its inputs' numbers on, such as Flatten."""
    registry = _registry()
    if layer.weights or type(layer).__name__ == "Activation" or not registry.supports(layer):
        return False
    return not registry.get_quantize_config(layer).get_output_quantizers(layer)


def _linear(layer) -> bool:
    return getattr(getattr(layer, "activation", None), "__name__", "linear") == "linear"


def _follows_kernel(layer) -> bool:
    """Whether TF-MOT treats this BatchNormalization together with the layer before it."""
    source = layer.inbound_nodes[0].inbound_layers
    if isinstance(source, list) or type(source).__name__ not in _WITH_NORM:
        return False
    return _linear(source) and len(source.outbound_nodes) == 1


def _before_relu(layer) -> bool:
    if len(layer.outbound_nodes) != 1:
        return False
    after = layer.outbound_nodes[0].layer
    activation = getattr(getattr(after, "activation", None), "__name__", "")
    return type(after).__name__ == "ReLU" or (
        type(after).__name__ == "Activation" and activation == "relu"
    )
