"""Losses as pure functions of labels and logits, one value per example."""

from keras_robust.losses._classification import (
    cross_entropy,
    dlr,
    kl_divergence,
    log_odds,
    margin,
)
from keras_robust.losses._trades import trades

__all__ = ["cross_entropy", "dlr", "kl_divergence", "log_odds", "margin", "trades"]
