"""Clusters assigned once a batch, not in each forward pass of an attack."""

import contextlib
import functools

import tensorflow as tf

from keras_robust._keras import keras
from keras_robust.compress._tfmot import cluster_wrapper, clustering_algorithm

# So many comparisons are faster than a search in a sorted list.
_MOST_COMPARED = 32


@functools.lru_cache(maxsize=1)
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
            """One search and one look-up for all calls inside."""
            algorithms = self.clustering_algorithms.values()
            for algorithm in algorithms:
                algorithm.found = None  # Asks for what the search finds.
            try:
                self.update_clustered_weights_associations()
                found = {name: self._found(name) for name in self._names()}
                # Past Keras, which would track the tensors of a graph as if they were state.
                object.__setattr__(self, "_resolved", found)
                yield
            finally:
                object.__setattr__(self, "_resolved", None)
                for algorithm in algorithms:
                    del algorithm.found

        def call(self, inputs, training=None, **kwargs):
            resolved = getattr(self, "_resolved", None)
            # Only a plain False is inference for sure; a tensor is known when it runs.
            inference = isinstance(training, (bool, int)) and not training
            if resolved is None and not inference:
                return super().call(inputs, training=training, **kwargs)
            for name in self._names():
                # In inference too: an objective may differentiate such a pass by the weights.
                known = resolved is not None
                weight = self._trained(name, resolved[name]) if known else self._look_up(name)
                self.set_weight_to_layer(name, weight)
            return self.layer.call(inputs, **kwargs)

        def _names(self):
            return list(self.original_clusterable_weights)

        def _found(self, name):
            """The clustered weight that the search just made has found, a constant."""
            algorithm = self.clustering_algorithms[name]
            if algorithm.found is None:  # TF-MOT's own search, channel by channel.
                return tf.stop_gradient(self._look_up(name))
            weight = tf.stop_gradient(algorithm.found[1])
            return weight * self.sparsity_masks[name] if self.preserve_sparsity else weight

        def _trained(self, name, weight):
            """The clustered `weight` with the gradients that TF-MOT's look-up has."""
            algorithm = self.clustering_algorithms[name]
            if algorithm.found is None or not _sums(algorithm):
                return self._look_up(name)
            original = self.original_clusterable_weights[name]
            if self.preserve_sparsity:
                original = original * self.sparsity_masks[name]
            centroids, (indices, _) = self.cluster_centroids[name], algorithm.found
            weight = _looked_up(*map(tf.convert_to_tensor, (centroids, original, indices, weight)))
            return weight * self.sparsity_masks[name] if self.preserve_sparsity else weight

        def _look_up(self, name):
            """The clustered weight, by the associations of the last search."""
            original = self.original_clusterable_weights[name]
            if self.preserve_sparsity:
                original = original * self.sparsity_masks[name]
            algorithm = self.clustering_algorithms[name]
            weight = algorithm.get_clustered_weight(self.pulling_indices[name], original)
            return weight * self.sparsity_masks[name] if self.preserve_sparsity else weight

    return AssignOnce


@tf.custom_gradient
def _looked_up(centroids, original, indices, weight):
    """`weight`, which is `centroids[indices]`, with the gradients of TF-MOT's look-up.

    Each centroid's is the sum over its weights, and `original` gets that of `weight` as it is.
    TF-MOT leaves the sum to the optimizer, which first has to find out which indices there are.
    """

    def gradients(upstream):
        flat = tf.reshape(upstream, [-1])
        summed = tf.math.unsorted_segment_sum(flat, tf.reshape(indices, [-1]), centroids.shape[0])
        return summed, upstream, None, None

    return tf.identity(weight), gradients


def _sums(algorithm) -> bool:
    """Whether a centroid's gradient is the sum over its weights, not their mean."""
    return algorithm.cluster_gradient_aggregation.name == "SUM"


def nearest(values, centroids) -> tuple[tf.Tensor, tf.Tensor]:
    """The nearest of `centroids`, `(k,)`, to each of `values`, of any shape.

    By comparing with the middles between them: TF-MOT takes the distance of each value from
    each centroid, k times the memory and many times the time.

    Returns:
        Its index, int64, and its value, both of the shape of `values`.
    """
    values, centroids = tf.convert_to_tensor(values), tf.convert_to_tensor(centroids)
    order = tf.argsort(centroids, stable=True)
    ordered = tf.gather(centroids, order)
    middles, flat = (ordered[1:] + ordered[:-1]) / 2, tf.reshape(values, [-1])
    if centroids.shape[0] <= _MOST_COMPARED:
        compare = _comparing(centroids.shape[0], values.dtype)
        index, value = compare(flat, middles, order, ordered)
    else:
        place = tf.searchsorted(middles, flat)
        index, value = tf.gather(order, place), tf.gather(ordered, place)
    index = tf.reshape(tf.cast(index, tf.int64), tf.shape(values))
    return index, tf.reshape(value, tf.shape(values))


@functools.cache
def _comparing(count: int, dtype):
    """A function that compares each value with the middles between `count` centroids.

    XLA makes one pass over the values of what is `3 * count` of them otherwise.
    """
    some = functools.partial(tf.TensorSpec, [None])
    between = tf.TensorSpec([count - 1], dtype)
    known = (tf.TensorSpec([count], tf.int32), tf.TensorSpec([count], dtype))

    @tf.function(jit_compile=True, input_signature=[some(dtype), between, *known])
    def compare(values, middles, order, ordered):
        index = tf.fill(tf.shape(values), order[0])
        value = tf.fill(tf.shape(values), ordered[0])
        for number, middle in enumerate(tf.unstack(middles), 1):
            beyond = values > middle
            index = tf.where(beyond, order[number], index)
            value = tf.where(beyond, ordered[number], value)
        return tf.cast(index, tf.int64), value

    return compare


def _nearest_of(algorithm, weight, centroids=None):
    """As TF-MOT's `get_pulling_indices`; the clustered weight is kept where it is asked for."""
    found = nearest(weight, algorithm.cluster_centroids if centroids is None else centroids)
    if hasattr(algorithm, "found"):
        algorithm.found = found
    return found[0]


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
