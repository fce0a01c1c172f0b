import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest

from keras_robust._keras import LEGACY, keras
from keras_robust.attacks import PGD
from keras_robust.compress import Cluster
from keras_robust.compress._assign import assign_once, nearest
from keras_robust.compress._flatten import flatten
from keras_robust.compress._stage import Context
from keras_robust.compress._tfmot import cluster_wrapper
from keras_robust.training import AdversarialTraining
from keras_robust.training.objectives import AWP, Fast, Madry

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


@pytest.mark.parametrize("objective", [Madry(), Fast(grad_align=2.0)])
def test_a_step_of_adversarial_training_searches_once(objective, tools, monkeypatch):
    """And ends with the weights that TF-MOT's layer, searching in every call, ends with."""
    x, y = tools.data(32)
    ends, searches, start = [], [], None
    for ours in (True, False):
        wrapped = Cluster(5).wrap(flatten(tools.model()), Context(1, 4))
        for layer in wrapped.layers:
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
            if isinstance(layer, assign_once()):
                if not ours:
                    layer.__class__ = cluster_wrapper().ClusterWeights
                monkeypatch.setattr(
                    layer, "update_clustered_weights_associations", counted(layer, searches)
                )
        start = start or wrapped.get_weights()
        wrapped.set_weights(start)
        attack = PGD(0.1, steps=3, random_start=False)
        trainer = AdversarialTraining(wrapped, attack, objective)
        trainer.compile(keras.optimizers.SGD(0.1))
        trainer.fit(x, y, batch_size=8, shuffle=False, verbose=0)
        ends.append(wrapped.get_weights())
        # The step is traced once: four layers search once each, or in each of the calls.
        assert (len(searches) == 4) == ours
        searches.clear()
    for here, there in zip(*ends, strict=True):
        np.testing.assert_allclose(here, there, atol=1e-5)


def counted(layer, searches):
    search = layer.update_clustered_weights_associations

    def update():
        searches.append(1)
        return search()

    return update


def test_awp_is_refused(tools):
    """It would move kernels that the layers compute from their centroids."""
    wrapped = Cluster(5).wrap(flatten(tools.model()), Context(1, 4))
    trainer = AdversarialTraining(wrapped, PGD(0.1, steps=1), AWP())
    trainer.compile(keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match="AWP cannot move the kernels of clustered layers"):
        trainer.fit(*tools.data(8), verbose=0)


def test_attacks_in_another_type_are_refused(tools):
    wrapped = Cluster(5).wrap(flatten(tools.model()), Context(1, 4))
    with pytest.raises(ValueError, match="`attack_dtype` must be None for a model whose layers"):
        AdversarialTraining(wrapped, PGD(0.1), attack_dtype="bfloat16")


_floats = st.floats(-4, 4, width=32, allow_subnormal=False)


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
    values=hnp.arrays("float32", (3, 7), elements=_floats),
    centroids=hnp.arrays("float32", st.sampled_from([2, 5, 40]), elements=_floats),
)
def test_nearest_is_as_near_as_any(values, centroids):
    found, value = (tensor.numpy() for tensor in nearest(values, centroids))
    np.testing.assert_array_equal(value, centroids[found])
    assert found.dtype == np.int64 and found.shape == values.shape
    distance = np.abs(values[..., None].astype("float64") - centroids)
    taken = np.take_along_axis(distance, found[..., None], axis=-1)[..., 0]
    assert np.all(taken <= distance.min(axis=-1) + 1e-6)
