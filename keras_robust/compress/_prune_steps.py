"""Who moves the masks while a model is pruned: the callbacks of `Prune`."""

import numpy as np

from keras_robust._keras import keras
from keras_robust.compress._masks import copy_of, find_kernels, masks_of, put_masks, set_mask


def masked_copy(model, names):
    """A copy of `model` whose layers `names` have masks that let everything through."""
    twin = copy_of(model)
    found = find_kernels(twin, names)
    put_masks(twin, {name: np.ones(tuple(v.shape), bool) for name, v in found.items()})
    return twin


class Steps(keras.callbacks.Callback):
    """Tells the training step since the start, whoever trains."""

    def __init__(self, steps):
        super().__init__()
        self._steps, self._epoch = steps, 0

    def on_train_begin(self, logs=None):
        self._epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        self.on_step(self._epoch * self._steps + batch)

    def on_step(self, step):
        raise NotImplementedError


def mask_callback(stage, wrapped, context):
    """Chooses the masks of a `masked_copy` at the steps of the stage's schedule."""
    total = context.epochs * context.steps

    class Masks(Steps):
        def on_train_begin(self, logs=None):
            super().on_train_begin(logs)
            self._next = self._done = 0

        def on_step(self, step):
            # With `steps_per_execution` several steps go by between two calls.
            passed = range(step, self._next - 1, -1)
            self._turn(next(filter(None, (stage.share_at(each, total) for each in passed)), None))
            self._next = step + 1

        def on_train_batch_end(self, batch, logs=None):
            self._done = self._epoch * self._steps + batch + 1

        def on_train_end(self, logs=None):
            # Where a schedule ends with the training, its last turn comes after the last step.
            self.on_step(self._done)
            if self._done < total:
                self._turn(stage.share_at(total, total))

        def _turn(self, share_of):
            if share_of is None:
                return
            found = find_kernels(wrapped, list(masks_of(wrapped)))
            for name, mask in stage.masks(found, share_of).items():
                set_mask(found[name], mask)

    return Masks(context.steps)


def step_callback(wrappers, steps):
    """Sets the step of each of TF-MOT's wrappers, however often a step calls the model.

    TF-MOT's own callback sets it once and lets each call of the layer in training mode
    add one: an objective that calls the model twice a step would run the schedule at
    double speed. It also looks for the wrappers in the model that is fitted, which need
    not be the wrapped one.
    """

    class PruningSteps(Steps):
        def on_step(self, step):
            for wrapper in wrappers:
                wrapper.pruning_step.assign(step)

        def on_epoch_end(self, epoch, logs=None):
            for wrapper in wrappers:
                wrapper.pruning_obj.weight_mask_op()

    return PruningSteps(steps)
