"""A suite of attacks on a set of artifacts: accuracies, sizes and latencies in one report."""

from keras_robust.evaluation._corruptions import mean_corruption_error
from keras_robust.evaluation._evaluate import evaluate
from keras_robust.evaluation._plots_size import pareto_front, size_plot
from keras_robust.evaluation._report import Report

__all__ = ["Report", "evaluate", "mean_corruption_error", "pareto_front", "size_plot"]
