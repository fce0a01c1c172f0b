"""Clusters assigned once a batch, not in each forward pass of an attack."""

import contextlib
from functools import lru_cache

import tensorflow as tf

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
        @contextlib.contextmanager
        def resolve_once(self):
            """One search for all calls inside, and one look-up for those in inference."""
            self.update_clustered_weights_associations()
            found = {name: tf.stop_gradient(self._look_up(name)) for name in self._names()}
            # Past Keras, which would track the tensors of a graph as if they were state.
            object.__setattr__(self, "_resolved", found)
            try:
                yield
            finally:
                object.__setattr__(self, "_resolved", None)

        def call(self, inputs, training=None, **kwargs):
            resolved = getattr(self, "_resolved", None)
            # Only a plain False is inference for sure; a tensor is known when it runs.
            inference = isinstance(training, (bool, int)) and not training
            if resolved is None and not inference:
                return super().call(inputs, training=training, **kwargs)
            for name in self._names():
                known = resolved is not None and inference
                self.set_weight_to_layer(name, resolved[name] if known else self._look_up(name))
            return self.layer.call(inputs, **kwargs)

        def _names(self):
            return list(self.original_clusterable_weights)

        def _look_up(self, name):
            """The clustered weight, by the associations of the last search."""
            original = self.original_clusterable_weights[name]
            if self.preserve_sparsity:
                original = original * self.sparsity_masks[name]
            algorithm = self.clustering_algorithms[name]
            weight = algorithm.get_clustered_weight(self.pulling_indices[name], original)
            return weight * self.sparsity_masks[name] if self.preserve_sparsity else weight

    return AssignOnce


def assign_callback(wrapped):
    """A callback that assigns the clusters of `wrapped` before each batch and validation.

    A trainer that resolves the weights in its steps needs it for validation only.
    """
    wrappers = [layer for layer in wrapped.layers if isinstance(layer, assign_once())]

    class Assign(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if not getattr(self.model, "resolves_weights", False):
                self.on_test_begin()

        def on_test_begin(self, logs=None):
            for wrapper in wrappers:
                wrapper.update_clustered_weights_associations()

    return Assign()
