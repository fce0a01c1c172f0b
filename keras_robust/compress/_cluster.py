"""Weight clustering, by TF-MOT's wrappers."""

import numbers
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from keras_robust._keras import keras, require_legacy
from keras_robust.compress._assign import assign_callback, assign_once
from keras_robust.compress._by_layer import settle_by_layer, value_for, values_of
from keras_robust.compress._centroids import few_weights_allowed
from keras_robust.compress._flatten import clone
from keras_robust.compress._kernels import kernels, lost_zeros
from keras_robust.compress._stage import (
    Context,
    check_factored,
    check_precision,
    copy_by_name,
    replace_layers,
    select,
)
from keras_robust.compress._tfmot import (
    cluster_registry,
    cluster_weights,
    cluster_wrapper,
    tfmot,
)
from keras_robust.compress._tied import keep_kernels

_INITS = {
    "linear": "LINEAR",
    "kmeans++": "KMEANS_PLUS_PLUS",
    "random": "RANDOM",
    "density": "DENSITY_BASED",
}


@dataclass(frozen=True)
class Cluster:
    """Makes the weights of each kernel share a few values, which are trained.

    Han, Mao and Dally 2015, https://arxiv.org/abs/1510.00149, section 3: a kernel keeps
    `clusters` centroids, each weight is the nearest one, and a centroid's gradient is the sum
    over its weights. A kernel, or by channel a channel, with no more weights than clusters is
    left as it is.

    Args:
        clusters: different values a kernel may hold, at least 2; zero counts as one, and with
            zeros to preserve TF-MOT wants at least 3. Or a dict with the number of each layer
            by its name, other layers are left alone.
        init: where the centroids start: "linear" between the smallest and largest weight
            (best in the paper, as it serves the few large weights), "kmeans++", "random",
            or "density" for equal shares of the weights.
        preserve_sparsity: keep weights at zero that are zero, as after `Prune`; kernels
            without zeros are clustered plainly.
        per_channel: each output channel of a Conv2D has centroids of its own, `clusters` of them:
            nearer to the weights, and a larger codebook in the file. `Quantize` cannot keep them.
        layers: names, or a function layer -> bool; None for all that TF-MOT clusters. A
            LowRankDense or LowRankConv2D has to be left out.

    Raises:
        ValueError, TypeError: an argument out of its range.

    >>> Cluster(16).init
    'linear'
    >>> Cluster({"conv1": 64, "dense1": 16}).layers
    ('conv1', 'dense1')
    """

    clusters: Any
    init: str = "linear"
    preserve_sparsity: bool = True
    per_channel: bool = False
    layers: Any = None

    name: ClassVar[str] = "clustered"
    verb: ClassVar[str] = "cluster"
    learning_rate: ClassVar[float] = 1e-4

    def __post_init__(self):
        require_legacy("kr.compress.Cluster")
        settle_by_layer(self, "clusters", _check_clusters)
        if self.init not in _INITS:
            raise ValueError(f"`init` must be one of {sorted(_INITS)}, got {self.init!r}.")
        if not isinstance(self.per_channel, bool):
            raise TypeError(f"`per_channel` must be True or False, got {self.per_channel!r}.")

    @property
    def most(self) -> int:
        """The number of clusters of the kernel that has most."""
        return max(values_of(self.clusters))

    def check(self, model, context: Context) -> list[str]:
        """The names of the layers that would be clustered; raises when there is none."""
        check_precision(model, "Cluster")
        check_factored(model, self.layers, "Cluster", "cluster")
        chosen = select(model, self.layers, _default, _possible, "cluster")
        found = [kernel for kernel in kernels(model).values() if kernel.layer in chosen]
        sizes = {}
        for kernel in found:
            sizes[kernel.layer] = max(sizes.get(kernel.layer, 0), self._codebooks(kernel).shape[1])
            self._check_zeros(kernel, context)
        large = [n for n in chosen if sizes.get(n, np.inf) > value_for(self.clusters, n)]
        if not large:
            what = "channel of a kernel" if self.per_channel else "kernel"
            raise ValueError(
                f"`clusters` is {self._told}, but no {what} has more weights than that: "
                f"{ {name: sizes[name] for name in chosen} }. Ask for fewer clusters."
            )
        return large

    @property
    def _told(self):
        """`clusters` as it was given."""
        return dict(self.clusters) if isinstance(self.clusters, tuple) else self.clusters

    def _check_zeros(self, kernel, context):
        number = value_for(self.clusters, kernel.layer)
        if number < 3 and self.preserve_sparsity and (context.sparse or kernel.sparsity > 0):
            name = "clusters" if number == self.clusters else f"clusters[{kernel.layer!r}]"
            raise ValueError(
                f"`{name}` must be at least 3 to keep the zeros of a pruned model, got "
                f"{number}. Ask for more, or say preserve_sparsity=False."
            )

    def wrap(self, model, context: Context):
        """A copy of the flat `model` whose kernels TF-MOT clusters while it trains."""
        clustering = tfmot().clustering.keras
        init = clustering.CentroidInitialization[_INITS[self.init]]
        chosen = set(self.check(model, context))
        sparse = {kernel.layer for kernel in kernels(model).values() if kernel.sparsity > 0}

        def make(layer):
            if layer.name not in chosen:
                return layer
            convolution = isinstance(layer, keras.layers.Conv2D)
            # The function takes one without a bias for one with few weights.
            kind = cluster_wrapper().ClusterWeights if convolution else cluster_weights()
            wrapper = kind(
                layer,
                value_for(self.clusters, layer.name),
                init,
                preserve_sparsity=self.preserve_sparsity and layer.name in sparse,
                cluster_per_channel=self.per_channel,
            )
            if type(wrapper).__name__ == "ClusterWeights":
                wrapper.__class__ = assign_once()
            return wrapper

        with few_weights_allowed():
            wrapped = replace_layers(clone(model), make)
        if self.preserve_sparsity:
            # What trains along without being clustered.
            left = [layer for layer in wrapped.layers if layer.name in sparse - chosen]
            keep_kernels(left, sparse=True)
        return wrapped

    def callbacks(self, wrapped, context: Context) -> list:
        """The callback that assigns the weights to their clusters, once a batch."""
        return [assign_callback(wrapped)]

    def strip(self, wrapped, model):
        """A plain copy of the flat `model` with the clustered weights of `wrapped`."""
        stripped = tfmot().clustering.keras.strip_clustering(wrapped)
        plain = clone(model)
        copy_by_name({layer.name: layer for layer in stripped.layers}, plain)
        return plain

    def broken(self, before: dict, after: dict, layers: list[str], context) -> list[str]:
        """A sentence for each kernel with too many values, or that lost zeros."""
        sentences = []
        for kernel in after.values():
            if kernel.layer not in layers or kernel.attribute == "depthwise_kernel":
                continue
            found, asked = self._distinct(kernel), value_for(self.clusters, kernel.layer)
            if found > asked:
                sentences.append(
                    f"layer {kernel.layer!r}: {found} different values, clusters={asked} was asked"
                )
        return sentences + (lost_zeros(before, after) if self.preserve_sparsity else [])

    def _distinct(self, kernel) -> int:
        """How many values share a codebook."""
        return max(np.unique(weights).size for weights in self._codebooks(kernel))

    def _codebooks(self, kernel) -> np.ndarray:
        """The weights that share a codebook, row by row."""
        if self.per_channel and kernel.values.ndim == 4 and kernel.attribute == "kernel":
            return kernel.values.reshape(-1, kernel.values.shape[-1]).T
        return kernel.values.reshape(1, -1)


def _check_clusters(name, value) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"`{name}` must be a whole number, got {value!r}.")
    if value < 2:
        raise ValueError(
            f"`{name}` must be at least 2, got {value}: with one value a kernel tells nothing "
            "apart."
        )
    return int(value)


def _possible(layer) -> bool:
    if not layer.trainable_weights:
        return False
    if hasattr(layer, "get_clusterable_weights"):
        return bool(layer.get_clusterable_weights())
    return bool(cluster_registry()._LAYERS_WEIGHTS_MAP.get(type(layer)))


def _default(layer) -> bool:
    return _possible(layer) and type(layer).__name__ != "Embedding"
