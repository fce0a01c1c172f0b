"""What a trainer is and what it measures, asked before it trains."""

import dataclasses

import tensorflow as tf

from keras_robust._keras import keras


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

    Settings are the attributes that are numbers, words or dataclasses, such as attacks. Two
    trainers that differ elsewhere alone have the same description.
    """
    own = set(vars(trainer)) - set(vars(keras.Model()))
    values = {name: getattr(trainer, name) for name in sorted(own) if not name.startswith("_")}
    told = {name: _word(value) for name, value in values.items() if _plain(value)}
    if type(trainer).__name__ in ("Functional", "Sequential"):
        told = {}  # The model itself.
    optimizer, loss = trainer.optimizer, trainer.loss
    # Mixed precision wraps it.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    found = {f"fine_tune.{name}": value for name, value in told.items()}
    found |= {"fine_tune": type(trainer).__name__, "optimizer": type(optimizer).__name__}
    for name, value in sorted(optimizer.get_config().items()):
        if name != "name":  # Keras 3 numbers them.
            found[f"optimizer.{name}"] = _word(value)
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    return {**found, "loss": name}


def _plain(value) -> bool:
    return isinstance(value, (bool, int, float, str)) or _is_settings(value)


def _is_settings(value) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _word(value):
    """Numbers and words as they are, lists and dicts by element, else what `repr` says."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {str(name): _word(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_word(one) for one in value]
    return float(value) if hasattr(value, "__float__") else repr(value)
