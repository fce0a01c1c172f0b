"""Training on many devices and machines: which strategy, and local workers to run it."""

from keras_robust.distribute._launch import launch
from keras_robust.distribute._strategy import (
    is_chief,
    shard_by_example,
    strategy,
    worker_index,
    workers,
)

__all__ = ["is_chief", "launch", "shard_by_example", "strategy", "worker_index", "workers"]
