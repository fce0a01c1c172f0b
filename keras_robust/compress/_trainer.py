"""A trainer for each model that is trained along the way, and the data it gets."""

import numbers
from dataclasses import dataclass, field

import tensorflow as tf

from keras_robust._keras import keras
from keras_robust.compress._inputs import check_fits, loss_for


@dataclass(frozen=True)
class Trainers:
    """Makes the compiled trainer of a model.

    Args:
        fine_tune: `m -> trainer`, None for `m` itself.
        optimizer: what an uncompiled trainer is compiled with, copied; None for Adam.
        loss: of an uncompiled trainer.
        metrics: their names, of an uncompiled trainer.
    """

    fine_tune: object = None
    optimizer: object = None
    loss: object = None
    metrics: tuple = ("accuracy",)
    compile_arguments: dict = field(default_factory=dict)

    def __post_init__(self):
        if self.fine_tune is not None and not callable(self.fine_tune):
            raise TypeError(
                "`fine_tune` must be a function that takes a model and returns its trainer, got "
                f"{type(self.fine_tune).__name__}. Write fine_tune=lambda m: "
                "kr.AdversarialTraining(m, attack)."
            )
        if self.optimizer is not None:
            object.__setattr__(self, "optimizer", keras.optimizers.get(self.optimizer))

    def __call__(self, model, learning_rate: float = 1e-3):
        trainer = model if self.fine_tune is None else self.fine_tune(model)
        if not isinstance(trainer, keras.Model):
            raise TypeError(
                "`fine_tune` must return a Keras model that trains the one it was given, got "
                f"{type(trainer).__name__}."
            )
        trained = {id(variable) for variable in trainer.trainable_variables}
        if any(id(variable) not in trained for variable in model.trainable_variables):
            raise ValueError(
                "`fine_tune` returned a trainer that does not train the model it was given. Wrap "
                "the argument itself, not a copy, and keep it as an attribute of the trainer."
            )
        if getattr(trainer, "optimizer", None) is not None:
            if self.optimizer is not None:
                raise ValueError(
                    "`optimizer` is for trainers that are not compiled, but `fine_tune` returned "
                    "a compiled one. Leave one of the two out."
                )
            return trainer
        trainer.compile(
            optimizer=self._fresh_optimizer(learning_rate),
            loss=self.loss,
            metrics=list(self.metrics),
            **self.compile_arguments,
        )
        return trainer

    def _fresh_optimizer(self, learning_rate):
        if self.optimizer is None:
            return keras.optimizers.Adam(learning_rate)
        return type(self.optimizer).from_config(self.optimizer.get_config())


def trainers_for(
    train_ds, validation_data, fine_tune, optimizer, model=None, **settings
) -> Trainers:
    """`Trainers` with the loss that fits the labels of checked data.

    Args:
        model: for data that is read once an epoch: what it must fit.

    Raises:
        TypeError: not a dataset of pairs.
        ValueError: an empty one, or one that does not fit `model`.
    """
    given, firsts = {"train_ds": train_ds, "validation_data": validation_data}, []
    for argument, dataset in given.items():
        firsts.append(check_batches(dataset, argument))
        if model is not None:
            check_fits(dataset, firsts[-1], model, argument)
    return Trainers(fine_tune, optimizer, loss_for(firsts[0][1]), **settings)


def check_batches(dataset, argument: str):
    """The first batch of a `tf.data.Dataset` of (x, y) or (x, y, sample_weight)."""
    if not isinstance(dataset, tf.data.Dataset):
        raise TypeError(
            f"`{argument}` must be a tf.data.Dataset of (x, y) batches, got "
            f"{type(dataset).__name__}. From arrays: "
            "tf.data.Dataset.from_tensor_slices((x, y)).batch(128)."
        )
    if not isinstance(dataset.element_spec, tuple) or len(dataset.element_spec) not in (2, 3):
        raise ValueError(
            f"`{argument}` must give (x, y) or (x, y, sample_weight), got elements "
            f"{dataset.element_spec}."
        )
    if dataset.element_spec[1].shape.rank == 0:
        raise ValueError(f"`{argument}` is not batched. Write {argument}.batch(128).")
    first = next(iter(dataset.take(1)), None)
    if first is None:
        raise ValueError(f"`{argument}` is empty. Give it at least one batch.")
    return first


def check_whole(name: str, value, least: int) -> int:
    """A whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"`{name}` must be a whole number >= {least}, got {value!r}.")
    return value


def check_share(name: str, value, least: float = 0.0) -> float:
    """A number in (least, 1), or in [0, 1) where `least` is below 0."""
    wrong = isinstance(value, bool) or not isinstance(value, numbers.Real)
    if wrong or not least < value < 1:
        interval = "[0, 1)" if least < 0 else f"({least:g}, 1)"
        raise ValueError(f"`{name}` must be a number in {interval}, got {value!r}.")
    return float(value)
