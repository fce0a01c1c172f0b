"""What a trainer is and what it measures, asked before it trains."""

import collections.abc
import dataclasses

import numpy as np
import tensorflow as tf

from keras_robust._identity import describe
from keras_robust._keras import is_model, keras


def check_metric(trainer, data: tf.data.Dataset, argument: str, metric: str) -> None:
    """Raises `ValueError` unless `trainer` measures `metric`; evaluates one batch of `data`."""
    names = measured(trainer, data)
    if metric not in names:
        raise ValueError(
            f"`{argument}` is {metric!r}, but the trainer measures {names}. For "
            '"robust_accuracy" give fine_tune=lambda m: kr.AdversarialTraining(m, attack).'
        )


def measured(trainer, data: tf.data.Dataset) -> list[str]:
    """The names that `trainer.evaluate` gives numbers to; asked of one batch."""
    return sorted(trainer.evaluate(data.take(1), verbose=0, return_dict=True))


def described(trainer) -> dict:
    """A compiled trainer in flat, JSON-ready words: its class, settings, optimizer and loss.

    Settings are the attributes that are numbers, words, arrays, dataclasses such as attacks,
    models that the trainer does not train, by their weights, and lists and dicts of these. Two
    trainers that differ elsewhere alone, in what other code or data they use, have the same
    description.
    """
    own = set(vars(trainer)) - set(vars(keras.Model()))
    values = {name: getattr(trainer, name) for name in sorted(own) if not name.startswith("_")}
    trained = {id(variable) for variable in trainer.trainable_variables}
    told = {name: value for name, value in values.items() if _is_setting(value, trained)}
    if type(trainer).__name__ in ("Functional", "Sequential"):
        told = {}  # The model itself.
    optimizer, loss = trainer.optimizer, trainer.loss
    # Mixed precision wraps it.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    found = {f"fine_tune.{n}": v if _is_word(v) else describe(v) for n, v in told.items()}
    found |= {"fine_tune": type(trainer).__name__, "optimizer": type(optimizer).__name__}
    for name, value in sorted(optimizer.get_config().items()):
        if name != "name":  # Keras 3 numbers them.
            found[f"optimizer.{name}"] = _word(value)
    return {**found, "loss": loss if isinstance(loss, str) else describe(loss)}


def _is_setting(value, trained: set[int]) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(_is_setting(one, trained) for one in value)
    if isinstance(value, collections.abc.Mapping):
        return bool(value) and all(_is_setting(one, trained) for one in value.values())
    if is_model(value):
        own = value.variables if value.built else ()
        return bool(own) and not any(id(variable) in trained for variable in own)
    return (
        _is_word(value)
        or isinstance(value, (np.ndarray, np.generic))
        or (dataclasses.is_dataclass(value) and not isinstance(value, type))
    )


def _is_word(value) -> bool:
    return isinstance(value, (bool, int, float, str))


def _word(value):
    """Numbers and words as they are, lists and dicts by element, else what `repr` says."""
    if value is None or _is_word(value):
        return value
    if isinstance(value, dict):
        return {str(name): _word(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_word(one) for one in value]
    return float(value) if hasattr(value, "__float__") else repr(value)
