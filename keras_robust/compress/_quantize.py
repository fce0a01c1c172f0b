"""Quantization-aware training to int8, by TF-MOT's wrappers."""

from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from keras_robust._keras import keras, require_legacy
from keras_robust.compress._calibrate import (
    RULES,
    calibrate,
    calibration_batches,
    settle_weights,
)
from keras_robust.compress._flatten import clone, flatten
from keras_robust.compress._float_layers import (
    check_names,
    layers_to_round,
    rounds_input,
    treatments,
)
from keras_robust.compress._kernels import lost_zeros
from keras_robust.compress._scheme import MOST_CLUSTERS, scheme
from keras_robust.compress._stage import Context, check_precision, replace_layers
from keras_robust.compress._tfmot import tfmot
from keras_robust.compress._tied import keep_kernels, keep_rounded
from keras_robust.compress._treatment import quantize_configs

_PRESERVE = ("sparsity", "clusters")
# What TF-MOT's variables of cluster-preserving training are called.
_TRAINING_ONLY = ("cluster_centroids_tf", "pulling_indices_tf", "ori_weights_vars_tf")


@dataclass(frozen=True)
class Quantize:
    """Trains with the rounding that an int8 file will have, and keeps what came before.

    Jacob et al. 2017, https://arxiv.org/abs/1712.05877: weights and activations are rounded
    in the forward pass (weights symmetric, per output channel in convolutions; activations
    per tensor), and gradients pass straight through. After `Prune` zeros stay zero, after
    `Cluster` a kernel keeps its few values, after both it keeps both, and after `Binarize` its
    two. Activation ranges start from the training data.

    The model that results is a trainable fake-quantized tf_keras model, which
    `kr.export.tflite` turns into an int8 file. Save it with `model.save("model.h5")` and
    load it with `kr.compress.load("model.h5")`: TF-MOT's layers do not come back from a
    `.keras` file.

    Args:
        bits: "int8".
        preserve: what to keep, any of "sparsity" and "clusters"; None for what the stages
            before in the recipe made. Give it for a model that was pruned elsewhere.
        calibration: how activation ranges start, and without training stay: "mean" of the
            batches' ranges, "percentile" (without the outermost 0.01%), or "mse" (least squared
            rounding error).
        float_layers: names of layers that stay float32 in training and in the file, with the
            BatchNormalization and activation that follow them, such as
            `kr.compress.sensitivity(...).most_sensitive(2)`. Their zeros and shared values
            are kept too.

    Raises:
        ValueError, TypeError: another number format, something else to preserve, an unknown
            calibration, no sequence of names.

    >>> Quantize("int8").bits
    'int8'
    """

    bits: str = "int8"
    preserve: tuple[str, ...] | None = None
    calibration: str = "mean"
    float_layers: tuple[str, ...] = ()

    name: ClassVar[str] = "quantized"
    verb: ClassVar[str] = "quantize"
    learning_rate: ClassVar[float] = 3e-4

    def __post_init__(self):
        require_legacy("kr.compress.Quantize")
        if self.bits != "int8":
            raise ValueError(
                f"`bits` must be 'int8', got {self.bits!r}. For float16 or dynamic-range files "
                "no training is needed: give the mode to kr.export.tflite."
            )
        if self.preserve is not None:
            if isinstance(self.preserve, str) or set(self.preserve) - set(_PRESERVE):
                raise ValueError(
                    f"`preserve` must be a sequence of names out of {_PRESERVE}, got "
                    f"{self.preserve!r}."
                )
            object.__setattr__(self, "preserve", tuple(self.preserve))
        if self.calibration not in RULES:
            raise ValueError(f"`calibration` must be one of {RULES}, got {self.calibration!r}.")
        object.__setattr__(self, "float_layers", check_names(self.float_layers))

    def apply(self, model, x):
        """Quantization after training: a fake-quantized copy of `model`, its ranges set from `x`.

        Args:
            model: as for `Recipe.run`; it is left as it is.
            x: a few hundred inputs `(n, ...)`, or a `tf.data.Dataset` of batches of inputs.

        Returns:
            A tf_keras model for `kr.export.tflite`, which can be trained on.

        Raises:
            TypeError, ValueError: as in a recipe.
        """
        flat = flatten(model)
        context = Context(epochs=1, steps=1, batches=calibration_batches(x, flat))
        self.check(flat, context)
        return self.strip(self.wrap(flat, context), flat)

    def check(self, model, context: Context) -> list[str]:
        """The names of the layers with weights to round; raises where TF-MOT could not."""
        check_precision(model, "Quantize")
        rounded = layers_to_round(model, self.float_layers)
        treatments(model, self.float_layers)
        return rounded

    def wrap(self, model, context: Context):
        """A fake-quantized copy of the flat `model`, its ranges set from the data."""
        sparse, clusters = self._keep(context)
        wrapped = _apply(model, sparse, clusters, self.float_layers)
        _hide_untrained(wrapped)
        left = [getattr(layer, "layer", layer) for layer in wrapped.layers]
        keep_kernels([x for x in left if x.name in self.float_layers], sparse, clusters)
        keep_rounded(wrapped, sparse, clusters)
        if context.batches is not None:
            calibrate(wrapped, context.batches, self.calibration)
        return wrapped

    def callbacks(self, wrapped, context: Context) -> list:
        """None are needed."""
        return []

    def strip(self, wrapped, model):
        """A fake-quantized model by TF-MOT's default scheme with `wrapped`'s weights and ranges.

        The variables that only kept clusters and zeros in training are left behind.
        """
        settle_weights(wrapped)
        plain = _apply(model, False, None, self.float_layers)
        for source, target in zip(wrapped.layers, plain.layers, strict=True):
            values = [v for v in source.weights if not _training_only(v.name)]
            if len(values) != len(target.weights):
                raise RuntimeError(
                    f"TF-MOT built layer {source.name!r} with {len(values)} weights in training "
                    f"and {len(target.weights)} without; this is a bug in keras_robust."
                )
            by_name = {_short(v.name): v for v in values}
            for variable, fallback in zip(target.weights, values, strict=True):
                value = by_name.get(_short(variable.name), fallback)
                # The one range of a clustered convolution, for each channel.
                variable.assign(tf.broadcast_to(value, variable.shape))
        return plain

    def broken(self, before: dict, after: dict, layers: list[str], context) -> list[str]:
        """A sentence for each kernel that lost zeros or gained values it was to keep."""
        sparse, clusters = self._keep(context)
        sentences = lost_zeros(before, after) if sparse else []
        for key, kernel in after.items():
            old = before.get(key)
            clustered = clusters and old is not None and old.distinct <= clusters
            if clustered and kernel.distinct > old.distinct:
                sentences.append(
                    f"layer {kernel.layer!r}: {kernel.distinct} different values, "
                    f"{old.distinct} before"
                )
        return sentences

    def _keep(self, context: Context):
        if self.preserve is None:
            return context.sparse, context.clusters
        return "sparsity" in self.preserve, MOST_CLUSTERS if "clusters" in self.preserve else None


def _apply(model, sparse, clusters, float_layers):
    quantization = tfmot().quantization.keras
    configs = quantize_configs()
    # Decided on `model`, whose layers know their neighbours; the copy's do as well.
    found = treatments(model, float_layers)

    def annotate(layer):
        treatment = found[layer.name]
        if treatment is None:
            return layer
        if treatment == "default":
            return quantization.quantize_annotate_layer(layer)
        return quantization.quantize_annotate_layer(layer, configs[treatment]())

    annotated = replace_layers(clone(model), annotate)
    rules = scheme(sparse, clusters, rounds_input(model, float_layers))
    with quantization.quantize_scope():
        return quantization.quantize_apply(annotated, rules)


def _hide_untrained(wrapped) -> None:
    """Takes the kernels of layers that are not trained out of the trained ones, and computed ones.

    TF-MOT counts each kernel that it rounds among its wrapper's own, whatever the layer says.
    Those of cluster-preserving training it assigns from the centroids in every step and gives
    them no gradient, which every optimizer warns of.
    """
    for layer in wrapped.layers:
        rounded = getattr(layer, "_weight_vars", ())
        computed = {id(v) for v, _, state in rounded if "ori_weights_vars_tf" in state}
        own = list(layer._trainable_weights) if rounded else []
        hidden = {id(v): v for v in own if id(v) in computed or not layer.trainable}
        if hidden:
            layer._trainable_weights = [v for v in own if id(v) not in hidden]
            held = {id(v) for v in layer.non_trainable_weights}
            layer._non_trainable_weights.extend(v for i, v in hidden.items() if i not in held)


def _training_only(name: str) -> bool:
    return any(part in name for part in _TRAINING_ONLY)


def _short(name: str) -> str:
    return name.partition(":")[0].rpartition("/")[2]


def load(path):
    """Loads a saved model that may be a fake-quantized one of `Quantize`.

    Keras alone cannot, as it does not know TF-MOT's layers.

    Args:
        path: an `.h5` file or SavedModel folder that `model.save` wrote; for a model that is
            not quantized also a `.keras` file.

    Returns:
        The tf_keras model.

    Raises:
        ValueError: a `.keras` file of a fake-quantized model.
    """
    require_legacy("kr.compress.load")
    try:
        with tfmot().quantization.keras.quantize_scope():
            return keras.models.load_model(path)
    except ValueError as error:
        if str(path).endswith(".keras") and "variables during loading" in str(error):
            raise ValueError(
                f"{path} holds a fake-quantized model, and TF-MOT's layers do not come back from "
                "a .keras file. Save it with model.save('model.h5') and load that. "
                f"({error})"
            ) from error
        raise
