import numpy as np
import pytest

from keras_robust._keras import LEGACY, keras
from keras_robust.compress import Cluster
from keras_robust.compress._assign import assign_once
from keras_robust.compress._flatten import flatten
from keras_robust.compress._stage import Context
from keras_robust.compress._tfmot import cluster_wrapper

pytestmark = pytest.mark.skipif(not LEGACY, reason="compress needs tf_keras")


@pytest.mark.parametrize("zeros", [False, True])
def test_inference_is_tfmots_own_after_the_callback(tools, zeros):
    model = flatten(tools.model())
    if zeros:
        kernel = model.get_layer("hidden").kernel
        kernel.assign(np.where(np.abs(kernel) < 0.1, 0.0, kernel))
    stage = Cluster(5)
    wrapped = stage.wrap(model, Context(1, 4))
    ours = [layer for layer in wrapped.layers if isinstance(layer, assign_once())]
    assert len(ours) == 4
    (callback,) = stage.callbacks(wrapped, Context(1, 4))
    x, y = tools.data(32)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    wrapped.compile(keras.optimizers.SGD(0.5), loss)
    stale = wrapped(x, training=False).numpy()
    wrapped.fit(x, y, batch_size=8, verbose=0)
    callback.on_test_begin()
    here = wrapped(x, training=False).numpy()
    for wrapper in ours:
        wrapper.__class__ = cluster_wrapper().ClusterWeights
    # TF-MOT's layer searches the clusters anew in this very call.
    assert np.allclose(here, wrapped(x, training=False), atol=1e-6)
    assert not np.allclose(here, stale, atol=1e-3)


def test_inference_does_not_search_the_clusters(tools, monkeypatch):
    stage = Cluster(5)
    wrapped = stage.wrap(flatten(tools.model()), Context(1, 4))
    searches = []
    for layer in wrapped.layers:
        if isinstance(layer, assign_once()):
            monkeypatch.setattr(
                layer, "update_clustered_weights_associations", lambda: searches.append(1)
            )
    x, _ = tools.data(8)
    wrapped(x, training=False)
    assert not searches
    wrapped(x, training=True)
    assert len(searches) == 4
