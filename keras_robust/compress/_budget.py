"""How far pruning inside one `fit` may go, and the callback that stops it there."""

import numbers
from dataclasses import dataclass

from keras_robust._keras import keras
from keras_robust.compress._logged import check_metric
from keras_robust.compress._masks import copy_of, find_kernels, masks_of, set_mask
from keras_robust.compress._trainer import check_share, check_whole


@dataclass(frozen=True)
class Budget:
    """What `Prune(until=...)` may spend, for use in a `Recipe` with `validation_data`.

    The first round trains without pruning, and what the validation then says is the reference.
    Each further round removes a share of the weights left and trains; the first one that ends
    more than `most_loss` below the reference is undone, and training stops.

    Args:
        most_loss: how far the metric may fall, as a difference, >= 0: 0.01 is one point.
        metric: what the validation logs, without "val_": "accuracy", "robust_accuracy".
        step: share of the weights left that each round removes, in (0, 1).
        epochs: of each round. The stage's epochs limit the rounds.

    Raises:
        ValueError: a setting out of its range.

    >>> Budget(most_loss=0.02, metric="robust_accuracy").step
    0.2
    """

    most_loss: float = 0.01
    metric: str = "accuracy"
    step: float = 0.2
    epochs: int = 1

    def __post_init__(self):
        check_most_loss(self.most_loss)
        check_share("step", self.step)
        check_whole("epochs", self.epochs, 1)

    def check(self, context) -> None:
        """Raises `ValueError` when there is no time for a round after the first."""
        if context.epochs < 2 * self.epochs:
            raise ValueError(
                f"`until` has rounds of epochs={self.epochs}, the first one without pruning, but "
                f"the stage trains for {context.epochs}. Give the recipe at least "
                f"epochs={2 * self.epochs}."
            )

    def check_logged(self, make, model, validation_data) -> None:
        """Raises `ValueError` unless a trainer that `make` makes of `model` logs the metric."""
        if validation_data is None:
            raise ValueError(
                f"`until` looks at {self.metric!r} of the validation. Give the recipe "
                "`validation_data`."
            )
        check_metric(make(copy_of(model)), validation_data, "Budget.metric", self.metric)

    def inside(self, reference: float, value: float) -> bool:
        """Whether the metric has not fallen too far; a NaN has."""
        return bool(reference - value <= self.most_loss + 1e-9)


def check_most_loss(value) -> None:
    """Raises `ValueError` unless `value` is a number >= 0."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not value >= 0:
        raise ValueError(f"`most_loss` must be a number >= 0, got {value!r}. 0.01 is one point.")


def budget_callback(stage, wrapped):
    """The callback that prunes `wrapped`, a masked model, in rounds and undoes one too many."""
    budget = stage.until

    class Rounds(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self._reference = self._kept = None

        def on_epoch_begin(self, epoch, logs=None):
            number = epoch // budget.epochs
            if number and epoch % budget.epochs == 0:
                found = find_kernels(wrapped, list(masks_of(wrapped)))
                most = 1 - (1 - budget.step) ** number
                masks = stage.masks(found, lambda share: min(share, most))
                for name, mask in masks.items():
                    set_mask(found[name], mask)

        def on_epoch_end(self, epoch, logs=None):
            if (epoch + 1) % budget.epochs:
                return
            name = f"val_{budget.metric}"
            if name not in (logs or {}):
                raise ValueError(
                    f"`until` looks at {name!r}, which is not logged: {sorted(logs or {})}. Give "
                    "the recipe `validation_data`, and for robust accuracy an adversarial trainer."
                )
            value = float(logs[name])
            if self._reference is None:
                self._reference = value
            if budget.inside(self._reference, value):
                self._kept = wrapped.get_weights()
            else:
                self.model.stop_training = True

        def on_train_end(self, logs=None):
            # Also what a last, unfinished round did.
            if self._kept is not None:
                wrapped.set_weights(self._kept)

    return Rounds()
