"""Clusters assigned once a batch, not in each forward pass of an attack."""

import contextlib
import functools
from functools import lru_cache

import tensorflow as tf

from keras_robust._keras import keras
from keras_robust.compress._tfmot import cluster_wrapper, clustering_algorithm

# So many comparisons are faster than a search in a sorted list.
_MOST_COMPARED = 32


@lru_cache(maxsize=1)
def assign_once():
    """TF-MOT's `ClusterWeights` with a call that, in inference, takes the stored clusters.

    TF-MOT looks for the nearest centroid of each weight in every call. In a step that attacks
    with PGD-7 these are eight times the same search, as the weights only move at its end.
    """
    base = cluster_wrapper().ClusterWeights
    slow = clustering_algorithm().ClusteringAlgorithm.get_pulling_indices

    class AssignOnce(base):
        def update_clustered_weights_associations(self):
            for algorithm in self.clustering_algorithms.values():
                if type(algorithm).get_pulling_indices is slow:
                    algorithm.get_pulling_indices = functools.partial(_nearest_of, algorithm)
            super().update_clustered_weights_associations()

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


def nearest(values, centroids) -> tf.Tensor:
    """The index of the nearest of `centroids`, `(k,)`, for each of `values`: int64, any shape.

    By comparing with the middles between them: TF-MOT takes the distance of each value from
    each centroid, k times the memory and three times the time at k = 16.
    """
    order = tf.argsort(centroids, stable=True)
    ordered = tf.gather(centroids, order)
    middles = (ordered[1:] + ordered[:-1]) / 2
    if centroids.shape[0] <= _MOST_COMPARED:
        place = tf.add_n([tf.cast(values > middle, tf.int32) for middle in tf.unstack(middles)])
    else:
        place = tf.reshape(tf.searchsorted(middles, tf.reshape(values, [-1])), tf.shape(values))
    return tf.cast(tf.gather(order, place), tf.int64)


def _nearest_of(algorithm, weight, centroids=None):
    """As TF-MOT's `get_pulling_indices`."""
    return nearest(weight, algorithm.cluster_centroids if centroids is None else centroids)


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
