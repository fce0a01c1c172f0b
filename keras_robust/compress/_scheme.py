"""The 8-bit scheme handed to TF-MOT: its own rules, with four faults of it avoided."""

from functools import lru_cache

import numpy as np

from keras_robust._keras import keras
from keras_robust.compress._tfmot import tfmot

# A kernel with more values than this is not taken for a clustered one.
MOST_CLUSTERS = 256


def scheme(sparse: bool, clusters: int | None, round_input: bool = True):
    """TF-MOT's default scheme, which also keeps zeros and clusters, decided kernel by kernel.

    It differs from TF-MOT's schemes of the same purpose in these points:
    - TF-MOT gives one weight quantizer to all layers of a kind, and the first kernel without
      zeros switches sparsity off for every other one; here each layer has its own.
    - TF-MOT splits the clusters of a convolution by output channel when each channel happens
      to use (nearly) as many of them, after which a kernel holds channels x clusters values;
      here the clusters stay the kernel's, and all channels round them in one range, so that the
      int8 kernel holds no more numbers than there are clusters.
    - TF-MOT leaves the kernel of a Conv2D or Dense that is followed by a ReLU layer out of
      the fake quantization altogether; here only its activation is left out.

    Args:
        sparse: keep at zero the weights that are zero, in kernels that have some.
        clusters: keep the values of kernels with at most so many; None to keep none.
        round_input: the model's input goes to int8 layers, and is rounded as it comes.
    """
    return _scheme_class()(sparse, clusters, round_input)


@lru_cache(maxsize=1)
def _scheme_class():
    tfmot()
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_registry as registry_module,
    )
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_scheme as scheme_module,
    )

    class Registry(registry_module.Default8BitQuantizeRegistry):
        def __init__(self, sparse, clusters):
            super().__init__()
            self._sparse = sparse
            self._clusters = clusters

        def get_quantize_config(self, layer):
            config = super().get_quantize_config(layer)
            if type(layer) not in (keras.layers.Conv2D, keras.layers.Dense) or not layer.built:
                return config
            # The table holds one config for all Conv2D layers, so make one of our own.
            config = type(config).from_config(config.get_config())
            quantizer = _weight_quantizer(layer, self._sparse, self._clusters)
            if quantizer is not None:
                config.weight_quantizer = quantizer
            return config

    class Scheme(scheme_module.Default8BitQuantizeScheme):
        def __init__(self, sparse, clusters, round_input):
            super().__init__()
            self._sparse = sparse
            self._clusters = clusters
            self._round_input = round_input

        def get_layout_transformer(self):
            return _layout_class()(self._round_input)

        def get_quantize_registry(self):
            return Registry(self._sparse, self._clusters)

    return Scheme


def _weight_quantizer(layer, sparse, clusters):
    """The quantizer that keeps what `layer`'s kernel has, None when there is nothing."""
    values = layer.kernel.numpy()
    distinct = np.unique(values).size
    zeros = sparse and bool(np.any(values == 0))
    convolution = isinstance(layer, keras.layers.Conv2D)
    if clusters is not None and 2 <= distinct <= clusters and distinct < values.size:
        return _cluster_quantizers()[convolution](zeros)
    if not zeros:
        return None
    from tensorflow_model_optimization.python.core.quantization.keras.collab_opts.prune_preserve import (  # noqa: E501
        prune_preserve_quantize_registry as module,
    )

    if convolution:
        return module.PrunePreserveDefault8BitConvWeightsQuantizer()
    return module.PrunePreserveDefault8BitWeightsQuantizer()


@lru_cache(maxsize=1)
def _cluster_quantizers():
    from tensorflow_model_optimization.python.core.quantization.keras.collab_opts.cluster_preserve import (  # noqa: E501
        cluster_preserve_quantize_registry as module,
    )

    class WholeKernel:
        """Shows TF-MOT a layer that is no Conv2D, so that it clusters the whole kernel."""

        class Plain:
            def __init__(self, layer, name):
                setattr(self, name, getattr(layer, name))
                self.data_format = getattr(layer, "data_format", "channels_last")

        def __init__(self, wrapper, name):
            self.layer = self.Plain(wrapper.layer, name)
            self.name = wrapper.name
            self.add_weight = wrapper.add_weight

    class DenseQuantizer(module.ClusterPreserveDefault8BitWeightsQuantizer):
        pass

    class ConvQuantizer(DenseQuantizer):
        # One range for the kernel, not one a channel: each value becomes one int8 number.
        def _build_clusters(self, name, layer):
            return super()._build_clusters(name, WholeKernel(layer, name))

    return DenseQuantizer, ConvQuantizer


@lru_cache(maxsize=1)
def _layout_class():
    from tensorflow_model_optimization.python.core.quantization.keras import (
        quantize_aware_activation,
        utils,
    )
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_layout_transform as layout_module,
    )
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_transforms as transforms,
    )
    from tensorflow_model_optimization.python.core.quantization.keras.graph_transformations import (
        model_transformer,
    )
    from tensorflow_model_optimization.python.core.quantization.keras.graph_transformations import (
        transforms as patterns,
    )

    linear = patterns.LayerPattern("Conv2D|DepthwiseConv2D|Dense", config={"activation": "linear"})

    class KernelThenReLU(patterns.Transform):
        """Conv2D or Dense, then a ReLU layer: quantize the kernel, and only the ReLU's output."""

        def pattern(self):
            return patterns.LayerPattern("ReLU", inputs=[linear])

        def replacement(self, match_layer):
            if match_layer.input_layers[0].metadata.get("quantize_config") is not None:
                return match_layer  # A kernel that stays float.
            match_layer.input_layers[0].layer["config"]["activation"] = utils.serialize_activation(
                quantize_aware_activation.NoOpActivation(), use_legacy_format=True
            )
            return match_layer

        def custom_objects(self):
            return {"NoOpActivation": quantize_aware_activation.NoOpActivation}

    class KernelThenActivation(KernelThenReLU):
        def pattern(self):
            return patterns.LayerPattern(
                "Activation", config={"activation": "relu"}, inputs=[linear]
            )

    class AddThenReLU(transforms.LayerReLUQuantize):
        def pattern(self):
            return patterns.LayerPattern("ReLU", inputs=[patterns.LayerPattern("Add")])

    class AddThenActivation(transforms.LayerReluActivationQuantize):
        def pattern(self):
            return patterns.LayerPattern(
                "Activation",
                config={"activation": "relu"},
                inputs=[patterns.LayerPattern("Add")],
            )

    class Layout(layout_module.quantize_layout_transform.QuantizeLayoutTransform):
        def __init__(self, round_input):
            super().__init__()
            self._start = [transforms.InputLayerQuantize()] if round_input else []

        def apply(self, model, layer_quantize_map):
            # TF-MOT's own list, but for the last four, and the longer Dense patterns first.
            steps = [
                *self._start,
                transforms.SeparableConv1DQuantize(),
                transforms.SeparableConvQuantize(),
                transforms.Conv2DReshapeBatchNormReLUQuantize(),
                transforms.Conv2DReshapeBatchNormActivationQuantize(),
                transforms.Conv2DBatchNormReLUQuantize(),
                transforms.Conv2DBatchNormActivationQuantize(),
                transforms.Conv2DReshapeBatchNormQuantize(),
                transforms.Conv2DBatchNormQuantize(),
                transforms.ConcatTransform6Inputs(),
                transforms.ConcatTransform5Inputs(),
                transforms.ConcatTransform4Inputs(),
                transforms.ConcatTransform3Inputs(),
                transforms.ConcatTransform(),
                transforms.DenseBatchNormReLUQuantize(),
                transforms.DenseBatchNormActivationQuantize(),
                transforms.DenseBatchNormQuantize(),
                KernelThenReLU(),
                KernelThenActivation(),
                AddThenReLU(),
                AddThenActivation(),
            ]
            return model_transformer.ModelTransformer(
                model, steps, set(layer_quantize_map.keys()), layer_quantize_map
            ).transform()

    return Layout
