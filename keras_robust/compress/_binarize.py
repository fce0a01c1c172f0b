"""A model with binary weights in the place of real ones, and a plain model of what it learned."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from keras_robust._batch_norm import check_batch_norm, measure_batch_norm
from keras_robust._keras import keras
from keras_robust._weights import give_weights
from keras_robust.compress._graph import check_graph, plain_layers, replace
from keras_robust.compress._kernels import variables_of
from keras_robust.compress._stage import Context, freeze_layers
from keras_robust.layers import BinaryConv2D, BinaryDense, BinaryDepthwiseConv2D
from keras_robust.layers._binary import TEST_WEIGHTS, Binary

# Arguments that the plain layer and the binary one share, by the plain layer's class.
_SHARED = {
    "Dense": (BinaryDense, ("units",)),
    "Conv2D": (BinaryConv2D, ("filters", "kernel_size", "strides", "padding", "dilation_rate")),
    "DepthwiseConv2D": (
        BinaryDepthwiseConv2D,
        ("kernel_size", "strides", "padding", "depth_multiplier", "dilation_rate"),
    ),
}
_COMMON = ("activation", "use_bias", "bias_initializer", "trainable", "name")


def binarize(
    model,
    *,
    layers=None,
    stochastic: bool = False,
    test_weights: str = "binary",
    scale="mean",
    learning_rate_scale="glorot",
    seed: int = 0,
):
    """A copy of `model` whose Dense and convolutional kernels are binary, ready to be trained.

    BinaryConnect, Courbariaux, Bengio and David 2015, https://arxiv.org/abs/1511.00363; see
    `kr.layers.BinaryDense`. The real weights start at H clip(w / m, -1, 1), m being the mean of
    |w| in the layer: so the signs are those of `model`. Biases and all other layers are copied;
    regularizers and constraints of the kernels are not, as they would work against the clip.
    The copy is not compiled, and `model` is left as it is.

    Args:
        model: a built Sequential or functional model, which may hold others.
        layers: names, or a function layer -> bool; None for all Dense, Conv2D (channels last,
            without groups) and DepthwiseConv2D. Those of any other kind stay.
        stochastic, test_weights, learning_rate_scale, seed: as for `kr.layers.BinaryDense`.
        scale: H. "mean" is m, the best for a kernel of +H and -H in its place (Rastegari et al.
            2016, https://arxiv.org/abs/1603.05279, eq. 6); or "glorot" or a number, which want
            BatchNormalization after each layer and training.

    Returns:
        A model of `model`'s kind.

    Raises:
        TypeError: not a Keras model, one of the other Keras, or `layers` of another type.
        ValueError: a model without a graph, an unknown or unsuitable layer, a kernel of zeros
            for "mean"; each by name.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> np.unique(np.sign(binarize(model).layers[-1].kernel)).size <= 2
    True
    """
    check_graph(model)
    if test_weights not in TEST_WEIGHTS:
        raise ValueError(f"`test_weights` must be one of {TEST_WEIGHTS}, got {test_weights!r}.")
    chosen = {id(layer) for layer in _chosen(model, freeze_layers(layers))}
    settings = {
        "stochastic": stochastic,
        "test_weights": test_weights,
        "learning_rate_scale": learning_rate_scale,
        "seed": seed,
    }
    return replace(
        model, lambda layer: [_binary(layer, scale, settings)] if id(layer) in chosen else None
    )


def freeze_binary(model, weights: str | None = None, *, batch_norm=None):
    """A copy of `model` with plain layers in the place of binary ones: the same outputs.

    What is deployed: `kr.compress.pack` stores such a kernel in a bit a weight or less.

    Args:
        model: a Sequential or functional model with layers of `kr.layers.Binary...`.
        weights: "binary", "real" or "sampled"; None takes what each layer's `test_weights` says,
            which is what the model computes now. Take "binary" for a model that infers with
            "real" weights, and measure it anew.
        batch_norm: `tf.data.Dataset` of inputs, or of `(inputs, ...)`, on which the statistics
            of BatchNormalization are measured for these weights, training images most likely.
            Drawn weights spread the outputs of a layer wider than "real" or "binary" ones do.
            None keeps the statistics of training, and so the outputs.

    Returns:
        A model of Dense, Conv2D and DepthwiseConv2D layers, not compiled.

    Raises:
        TypeError: not a Keras model, or one of the other Keras.
        ValueError: a model without a graph or without binary layers, unknown `weights`, a
            `batch_norm` that is no dataset.

    >>> layer = kr.layers.BinaryDense(3, name="binary")
    >>> frozen = freeze_binary(keras.Sequential([keras.Input((4,)), layer]))
    >>> type(frozen.layers[-1]).__name__, np.unique(frozen.layers[-1].kernel).tolist()
    ('Dense', [-1.0, 1.0])
    """
    check_graph(model)
    if weights is not None and weights not in TEST_WEIGHTS:
        raise ValueError(f"`weights` must be one of {TEST_WEIGHTS} or None, got {weights!r}.")
    check_batch_norm(batch_norm)
    if not any(isinstance(layer, Binary) for layer in plain_layers(model)):
        raise ValueError(
            f"`model` {model.name!r} has no binary layer. Make some with "
            "kr.compress.binarize(model)."
        )
    frozen = replace(
        model, lambda layer: [_plain(layer, weights)] if isinstance(layer, Binary) else None
    )
    if batch_norm is not None:
        measure_batch_norm(frozen, batch_norm)
    return frozen


def frozen_binary(model) -> dict[str, float]:
    """Layers of a checked model that look as `freeze_binary` leaves them: name -> magnitude.

    Their kernel holds +c and -c and nothing else. Two values that `Cluster` trained are not each
    other's opposites to the last bit.
    """
    found = {}
    for layer in plain_layers(model):
        for variable in variables_of(layer).values():
            values = np.unique(np.asarray(variable))
            if values.size == 2 and values[0] == -values[1]:
                found[layer.name] = float(values[1])
    return found


@dataclass(frozen=True)
class Binarize:
    """The stage of a recipe that trains weights of one bit: `binarize`, `fit`, `freeze_binary`.

    What is left is a plain model whose chosen kernels hold +H and -H, for `pack` a bit a weight.
    `Quantize` may follow and keeps the two values of each. It is for `Recipe` alone; train a
    `binarize`d model yourself for a net that infers with its real weights.

    Args:
        layers: names, or a function layer -> bool; None for all that `binarize` takes.
        stochastic: draw the weights of each step. They spread a layer's outputs wider than the
            signs that stay, so the statistics of BatchNormalization are then measured anew, on
            the first batches of the training data.
        scale, learning_rate_scale: as for `binarize`.

    Raises:
        TypeError, ValueError: an argument out of its range; with a model, a layer that cannot be
            binary, by name.

    >>> Recipe = kr.compress.Recipe
    >>> len(Recipe([kr.compress.PruneNeurons(0.5), Binarize(stochastic=True)]).stages)
    2
    """

    layers: Any = None
    stochastic: bool = False
    scale: Any = "mean"
    learning_rate_scale: Any = "glorot"

    name: ClassVar[str] = "binarized"
    verb: ClassVar[str] = "binarize"
    learning_rate: ClassVar[float] = 1e-3

    def __post_init__(self):
        object.__setattr__(self, "layers", freeze_layers(self.layers))
        # The layer knows what it takes.
        scale = "glorot" if _is_mean(self.scale) else self.scale
        BinaryDense(1, name="check", **{**self._settings(), "scale": scale})

    def check(self, model, context: Context) -> list[str]:
        """The names of the layers to binarize; raises `ValueError` when something is wrong."""
        check_graph(model)
        chosen = _chosen(model, self.layers)
        for layer in chosen:
            _mean_magnitude(layer)
        return [layer.name for layer in chosen]

    def wrap(self, model, context: Context):
        """A copy of the flat `model` with binary layers."""
        return binarize(model, layers=self.layers, seed=context.seed, **self._settings())

    def callbacks(self, wrapped, context: Context) -> list:
        """For drawn weights, one that measures the statistics for their signs at the end."""
        return [_Settle(wrapped, context.batches)] if self.stochastic else []

    def strip(self, wrapped, model):
        """A plain copy of `wrapped` with the signs of its weights."""
        return freeze_binary(wrapped, "binary")

    def broken(self, before: dict, after: dict, layers: list[str], context) -> list[str]:
        """A sentence for each kernel that holds anything but +H and -H."""
        sentences = []
        for kernel in after.values():
            magnitudes = np.unique(np.abs(kernel.values))
            two = magnitudes.size == 1 and 0 < magnitudes[0] < np.inf
            if kernel.layer in layers and not two:
                sentences.append(
                    f"layer {kernel.layer!r}: {kernel.distinct} different values, not +H and -H"
                )
        return sentences

    def _settings(self) -> dict:
        own = ("stochastic", "scale", "learning_rate_scale")
        return {name: getattr(self, name) for name in own}


class _Settle(keras.callbacks.Callback):
    """Gives a model of drawn weights, once trained, the statistics that it has when frozen."""

    def __init__(self, wrapped, batches):
        super().__init__()
        self._wrapped, self._batches = wrapped, batches

    def on_train_end(self, logs=None):
        frozen = freeze_binary(self._wrapped, "binary", batch_norm=self._batches)
        pairs = zip(plain_layers(self._wrapped), plain_layers(frozen), strict=True)
        for layer, settled in pairs:
            if isinstance(layer, keras.layers.BatchNormalization):
                give_weights(layer, settled.get_weights())


def _chosen(model, layers) -> list:
    offered = plain_layers(model)
    possible = [layer for layer in offered if _possible(layer)]
    names = [layer.name for layer in possible]
    if layers is None:
        chosen = possible
    elif callable(layers):
        chosen = [layer for layer in possible if layers(layer)]
    else:
        known = {layer.name: layer for layer in offered}
        unknown = [name for name in layers if name not in known]
        if unknown:
            raise ValueError(
                f"`layers` names {unknown}, which the model does not have. Layers to binarize: "
                f"{names}."
            )
        refused = {name: type(known[name]).__name__ for name in layers if name not in names}
        if refused:
            raise ValueError(
                f"`layers` names {refused}, which cannot be binary: only Dense, Conv2D without "
                f"groups and DepthwiseConv2D, channels last. Layers to binarize: {names}."
            )
        twice = [name for name in layers if names.count(name) > 1]
        if twice:
            raise ValueError(
                f"`layers` names {twice}, but several layers of the models inside have that name. "
                "Give them different names, or choose with layers=lambda layer: ..."
            )
        chosen = [layer for layer in possible if layer.name in layers]
    if not chosen:
        known = [layer.name for layer in offered]
        raise ValueError(f"`model` {model.name!r} has no layer to binarize among {known}.")
    return chosen


def _possible(layer) -> bool:
    kind = type(layer).__name__
    return (
        kind in _SHARED
        and type(layer) is getattr(keras.layers, kind)
        and getattr(layer, "data_format", "channels_last") == "channels_last"
        # A depthwise layer calls its channels groups, in tf_keras.
        and (kind != "Conv2D" or layer.groups == 1)
        and getattr(layer, "quantization_mode", None) is None
    )


def _binary(layer, scale, settings):
    """The binary layer in place of a plain one, and its weights."""
    kind, arguments = _SHARED[type(layer).__name__]
    kernel, mean = _kernel(layer), _mean_magnitude(layer)
    new = kind(
        **{name: getattr(layer, name) for name in (*arguments, *_COMMON)},
        **settings,
        scale=mean if _is_mean(scale) else scale,
        dtype=layer.dtype_policy,
    )
    channels = kernel.shape[0] if kernel.ndim == 2 else kernel.shape[2]
    magnitude, slope = new.scales(channels)
    real = magnitude * np.clip(kernel.astype("float64") / mean, -1.0, 1.0)
    weights = [real / slope]
    if layer.use_bias:
        weights.append(layer.bias.numpy())
    if new.stochastic:
        weights.append(np.zeros((), "int64"))
    return new, weights


def _plain(layer, weights):
    """The plain layer in place of a binary one, and its weights."""
    name = type(layer).__name__.removeprefix("Binary")
    _, arguments = _SHARED[name]
    plain = getattr(keras.layers, name)(
        **{name: getattr(layer, name) for name in (*arguments, *_COMMON)}, dtype=layer.dtype_policy
    )
    values = [layer.weights_as(layer.test_weights if weights is None else weights).numpy()]
    if layer.use_bias:
        values.append(layer.bias.numpy())
    return plain, values


def _kernel(layer):
    depthwise = getattr(layer, "depthwise_kernel", None)
    return (layer.kernel if depthwise is None else depthwise).numpy()


def _mean_magnitude(layer) -> float:
    mean = float(np.mean(np.abs(_kernel(layer)), dtype=np.float64))
    if not np.isfinite(mean) or mean == 0:
        raise ValueError(
            f"The kernel of layer {layer.name!r} must be finite and not all zero, got a mean "
            f"magnitude of {mean}: it has no signs to keep."
        )
    return mean


def _is_mean(scale) -> bool:
    return isinstance(scale, str) and scale == "mean"
