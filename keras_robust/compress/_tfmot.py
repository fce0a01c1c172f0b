"""TensorFlow Model Optimization, imported when first needed and leaving no trace."""

import os

from keras_robust._keras import require_legacy


def tfmot():
    """The module `tensorflow_model_optimization`; its import changes no environment variable.

    TF-MOT sets `TF_USE_LEGACY_KERAS` when imported, so that whatever is started or imported
    afterwards runs another Keras than the user asked for, and scikit-learn, which it imports
    where there is one, sets variables of OpenMP. All are put back as they were.

    Raises:
        ImportError: Keras 3 runs, or TF-MOT is not installed.
    """
    require_legacy("keras_robust.compress")
    before = dict(os.environ)
    try:
        import tensorflow_model_optimization
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "tensorflow_model_optimization":
            raise
        raise ImportError(
            "keras_robust.compress needs tensorflow-model-optimization, which is not installed. "
            'Install it: pip install "keras-robust[compress]".'
        ) from error
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
    return tensorflow_model_optimization


def prune_registry():
    """TF-MOT's table of the layers whose weights it can prune."""
    tfmot()
    from tensorflow_model_optimization.python.core.sparsity.keras import prune_registry as module

    return module.PruneRegistry


def cluster_registry():
    """TF-MOT's table of the layers whose weights it can cluster."""
    tfmot()
    from tensorflow_model_optimization.python.core.clustering.keras import (
        clustering_registry as module,
    )

    return module.ClusteringRegistry


def cluster_weights():
    """TF-MOT's experimental `cluster_weights`, the one that can keep zeros."""
    tfmot()
    from tensorflow_model_optimization.python.core.clustering.keras.experimental import (
        cluster as module,
    )

    return module.cluster_weights


def cluster_wrapper():
    """TF-MOT's module of the layer that clusters the weights of another."""
    tfmot()
    from tensorflow_model_optimization.python.core.clustering.keras import (
        cluster_wrapper as module,
    )

    return module


def clustering_centroids():
    """TF-MOT's module of where centroids start."""
    tfmot()
    from tensorflow_model_optimization.python.core.clustering.keras import (
        clustering_centroids as module,
    )

    return module


def clustering_algorithm():
    """TF-MOT's module of the search for the nearest centroids."""
    tfmot()
    from tensorflow_model_optimization.python.core.clustering.keras import (
        clustering_algorithm as module,
    )

    return module
