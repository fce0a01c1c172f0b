"""Weight clustering, by TF-MOT's wrappers."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from keras_robust._keras import require_legacy
from keras_robust.compress._assign import assign_callback, assign_once
from keras_robust.compress._flatten import clone
from keras_robust.compress._kernels import kernels, lost_zeros
from keras_robust.compress._stage import (
    Context,
    check_precision,
    copy_by_name,
    freeze_layers,
    replace_layers,
    select,
)
from keras_robust.compress._tfmot import cluster_registry, cluster_weights, tfmot

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
    over its weights. A kernel with no more weights than clusters is left as it is.

    Args:
        clusters: different values a kernel may hold, at least 2; zero counts as one, and with
            zeros to preserve TF-MOT wants at least 3.
        init: where the centroids start: "linear" between the smallest and largest weight
            (best in the paper, as it serves the few large weights), "kmeans++", "random",
            or "density" for equal shares of the weights.
        preserve_sparsity: keep weights at zero that are zero, as after `Prune`; kernels
            without zeros are clustered plainly.
        per_channel: each output channel of a Conv2D has centroids of its own, `clusters` of them:
            nearer to the weights, and a larger codebook in the file. `Quantize` cannot keep them.
        layers: names, or a function layer -> bool; None for all that TF-MOT clusters.

    Raises:
        ValueError, TypeError: an argument out of its range.

    >>> Cluster(16).init
    'linear'
    """

    clusters: int
    init: str = "linear"
    preserve_sparsity: bool = True
    per_channel: bool = False
    layers: Any = None

    name: ClassVar[str] = "clustered"
    verb: ClassVar[str] = "cluster"
    learning_rate: ClassVar[float] = 1e-4

    def __post_init__(self):
        require_legacy("kr.compress.Cluster")
        if isinstance(self.clusters, bool) or not isinstance(self.clusters, (int, np.integer)):
            raise TypeError(f"`clusters` must be a whole number, got {self.clusters!r}.")
        if self.clusters < 2:
            raise ValueError(
                f"`clusters` must be at least 2, got {self.clusters}: with one value a kernel "
                "tells nothing apart."
            )
        if self.init not in _INITS:
            raise ValueError(f"`init` must be one of {sorted(_INITS)}, got {self.init!r}.")
        if not isinstance(self.per_channel, bool):
            raise TypeError(f"`per_channel` must be True or False, got {self.per_channel!r}.")
        object.__setattr__(self, "clusters", int(self.clusters))
        object.__setattr__(self, "layers", freeze_layers(self.layers))

    def check(self, model, context: Context) -> list[str]:
        """The names of the layers that would be clustered; raises when there is none."""
        check_precision(model, "Cluster")
        chosen = select(model, self.layers, _default, _possible, "cluster")
        sizes = {}
        found = kernels(model).values()
        zeros = context.sparse or any(kernel.sparsity > 0 for kernel in found)
        if self.clusters < 3 and self.preserve_sparsity and zeros:
            raise ValueError(
                f"`clusters` must be at least 3 to keep the zeros of a pruned model, got "
                f"{self.clusters}. Ask for more, or say preserve_sparsity=False."
            )
        for kernel in found:
            sizes[kernel.layer] = max(sizes.get(kernel.layer, 0), kernel.values.size)
        large = [name for name in chosen if sizes.get(name, np.inf) > self.clusters]
        if not large:
            raise ValueError(
                f"`clusters` is {self.clusters}, but no kernel has more weights than that: "
                f"{ {name: sizes[name] for name in chosen} }. Ask for fewer clusters."
            )
        return large

    def wrap(self, model, context: Context):
        """A copy of the flat `model` whose kernels TF-MOT clusters while it trains."""
        clustering = tfmot().clustering.keras
        init = clustering.CentroidInitialization[_INITS[self.init]]
        chosen = set(self.check(model, context))
        sparse = {kernel.layer for kernel in kernels(model).values() if kernel.sparsity > 0}

        def make(layer):
            if layer.name not in chosen:
                return layer
            wrapper = cluster_weights()(
                layer,
                self.clusters,
                init,
                preserve_sparsity=self.preserve_sparsity and layer.name in sparse,
                cluster_per_channel=self.per_channel,
            )
            if type(wrapper).__name__ == "ClusterWeights":
                wrapper.__class__ = assign_once()
            return wrapper

        return replace_layers(clone(model), make)

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
        sentences = [
            f"layer {kernel.layer!r}: {self._distinct(kernel)} different values, clusters="
            f"{self.clusters} was asked"
            for kernel in after.values()
            if kernel.layer in layers
            and kernel.attribute != "depthwise_kernel"
            and self._distinct(kernel) > self.clusters
        ]
        return sentences + (lost_zeros(before, after) if self.preserve_sparsity else [])

    def _distinct(self, kernel) -> int:
        """How many values share a codebook."""
        if self.per_channel and kernel.values.ndim == 4:
            channels = kernel.values.reshape(-1, kernel.values.shape[-1]).T
            return max(np.unique(channel).size for channel in channels)
        return kernel.distinct


def _possible(layer) -> bool:
    if not layer.trainable_weights:
        return False
    if hasattr(layer, "get_clusterable_weights"):
        return bool(layer.get_clusterable_weights())
    return bool(cluster_registry()._LAYERS_WEIGHTS_MAP.get(type(layer)))


def _default(layer) -> bool:
    return _possible(layer) and type(layer).__name__ != "Embedding"
