"""Make a trained model small: fewer layers' weights, fewer bits, a file of what is left.

`Cluster` and `Quantize` work over TensorFlow Model Optimization, which needs tf_keras; all else
runs under either Keras.
"""

from keras_robust.compress._binarize import Binarize, binarize, freeze_binary
from keras_robust.compress._budget import Budget
from keras_robust.compress._cluster import Cluster
from keras_robust.compress._factorize import Factorize
from keras_robust.compress._flops import Count, count
from keras_robust.compress._lottery import LotteryTickets, find_ticket
from keras_robust.compress._masks import keep_zeros
from keras_robust.compress._neurons import PruneNeurons, remove_dead
from keras_robust.compress._plan import Plan
from keras_robust.compress._prune import Prune
from keras_robust.compress._quantize import Quantize, load
from keras_robust.compress._recipe import Recipe
from keras_robust.compress._result import Result, Stage
from keras_robust.compress._scores import PruneByScores
from keras_robust.compress._scratch import (
    ScratchBudget,
    scratch_baselines,
    scratch_budget,
    scratch_table,
)
from keras_robust.compress._sensitivity import Sensitivity, sensitivity
from keras_robust.compress._separate import Separate
from keras_robust.compress._unit_scores import unit_scores
from keras_robust.compress._until import PruneRun, prune_until
from keras_robust.compress.packed import SizeReport, pack, size_report, unpack

__all__ = [
    "Binarize",
    "Budget",
    "Cluster",
    "Count",
    "Factorize",
    "LotteryTickets",
    "Plan",
    "Prune",
    "PruneByScores",
    "PruneNeurons",
    "PruneRun",
    "Quantize",
    "Recipe",
    "Result",
    "ScratchBudget",
    "Sensitivity",
    "Separate",
    "SizeReport",
    "Stage",
    "binarize",
    "count",
    "find_ticket",
    "freeze_binary",
    "keep_zeros",
    "load",
    "pack",
    "prune_until",
    "remove_dead",
    "scratch_baselines",
    "scratch_budget",
    "scratch_table",
    "sensitivity",
    "size_report",
    "unit_scores",
    "unpack",
]
