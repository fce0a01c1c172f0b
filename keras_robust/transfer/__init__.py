"""Learnt representations put to use: projected, probed, stored, and given a new head."""

from keras_robust.transfer._class_plot import class_plot
from keras_robust.transfer._embeddings import embeddings
from keras_robust.transfer._head import Parameters, parameters, replace_head
from keras_robust.transfer._hints import fit_hints
from keras_robust.transfer._probe import Probe, probe
from keras_robust.transfer._projection import Projection, low_dimensional_embedding
from keras_robust.transfer._storage import (
    Stored,
    load_embeddings,
    load_projection,
    save_embeddings,
    save_projection,
)

__all__ = [
    "Parameters",
    "Probe",
    "Projection",
    "Stored",
    "class_plot",
    "embeddings",
    "fit_hints",
    "load_embeddings",
    "load_projection",
    "low_dimensional_embedding",
    "parameters",
    "probe",
    "replace_head",
    "save_embeddings",
    "save_projection",
]
