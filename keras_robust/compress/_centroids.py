"""Where centroids start in kernels with fewer weights to share than centroids."""

import contextlib
import functools

import tensorflow as tf

from keras_robust.compress._tfmot import clustering_centroids


@contextlib.contextmanager
def few_weights_allowed():
    """While it lasts TF-MOT starts the centroids of almost empty kernels too.

    Beside zero it wants a weight for each centroid of a kernel that is to keep its zeros, or, by
    channel, of each channel, and fails in one that was pruned away whole. Here such weights are
    their own centroids, and the others are zero.
    """
    kind = clustering_centroids().AbstractCentroidsInitialisation
    before = kind._zero_centroid_initialization
    kind._zero_centroid_initialization = functools.partialmethod(_start, before)
    try:
        yield
    finally:
        kind._zero_centroid_initialization = before


def _start(self, before, weights_to_cluster=None):
    weights = self.weights if weights_to_cluster is None else weights_to_cluster
    used = tf.boolean_mask(weights, tf.not_equal(weights, 0.0))
    values = tf.sort(tf.unique(tf.reshape(used, [-1]))[0])
    spare = self.number_of_clusters - tf.size(values)
    if spare < 1:
        return before(self, weights_to_cluster)
    zeros = tf.zeros([spare], values.dtype)
    return tf.concat([values[values < 0], zeros, values[values > 0]], axis=0)
