"""Losses as pure functions of labels and logits, one value per example."""

from keras_robust.losses._classification import (
    cross_entropy,
    dlr,
    kl_divergence,
    log_odds,
    margin,
)
from keras_robust.losses._distillation import Distillation, distillation, ensemble_logits
from keras_robust.losses._gradients import gradient_penalty, misalignment, unit_rows
from keras_robust.losses._mart import mart, misclassification, runner_up
from keras_robust.losses._pairing import logit_pairing
from keras_robust.losses._smoothing import LabelSmoothing, smooth
from keras_robust.losses._squared_hinge import SquaredHinge, squared_hinge
from keras_robust.losses._trades import trades

__all__ = [
    "Distillation",
    "LabelSmoothing",
    "SquaredHinge",
    "cross_entropy",
    "distillation",
    "dlr",
    "ensemble_logits",
    "gradient_penalty",
    "kl_divergence",
    "log_odds",
    "logit_pairing",
    "margin",
    "mart",
    "misalignment",
    "misclassification",
    "runner_up",
    "smooth",
    "squared_hinge",
    "trades",
    "unit_rows",
]
