"""Clusters assigned once a batch, not in each forward pass of an attack."""

from functools import lru_cache

from keras_robust._keras import keras
from keras_robust.compress._tfmot import cluster_wrapper


@lru_cache(maxsize=1)
def assign_once():
    """TF-MOT's `ClusterWeights` with a call that, in inference, takes the stored clusters.

    TF-MOT looks for the nearest centroid of each weight in every call. In a step that attacks
    with PGD-7 these are eight times the same search, as the weights only move at its end.
    """
    base = cluster_wrapper().ClusterWeights

    class AssignOnce(base):
        def call(self, inputs, training=None, **kwargs):
            # Only a plain False is inference for sure; a tensor is known when it runs.
            if not (isinstance(training, (bool, int)) and not training):
                return super().call(inputs, training=training, **kwargs)
            for name, original in self.original_clusterable_weights.items():
                weight = self.clustering_algorithms[name].get_clustered_weight(
                    self.pulling_indices[name], original
                )
                if self.preserve_sparsity:
                    weight = weight * self.sparsity_masks[name]
                self.set_weight_to_layer(name, weight)
            return self.layer.call(inputs, **kwargs)

    return AssignOnce


def assign_callback(wrapped):
    """A callback that assigns the clusters of `wrapped` before each batch and validation."""
    wrappers = [layer for layer in wrapped.layers if isinstance(layer, assign_once())]

    class Assign(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            for wrapper in wrappers:
                wrapper.update_clustered_weights_associations()

        def on_test_begin(self, logs=None):
            self.on_train_batch_begin(0)

    return Assign()
