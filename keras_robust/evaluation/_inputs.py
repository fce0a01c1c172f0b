"""What `evaluate` is given, checked before anything runs."""

import collections.abc
import dataclasses
import math
import numbers

import numpy as np
import tensorflow as tf

from keras_robust._checks import (
    as_tensor,
    check_channels_last,
    check_images,
    check_labels,
    check_logits,
    check_same_length,
    is_one_hot,
)
from keras_robust.attacks._threat import beyond_range
from keras_robust.evaluation._artifacts import Artifact, open_artifact
from keras_robust.evaluation._columns import is_radius
from keras_robust.evaluation._gradients import look_at_gradients

# How far from a probability vector a row of int8 softmax outputs, in steps of 1/256, can be.
_STEP = 1 / 256


def check_data(x, y, attacks) -> tuple[np.ndarray, np.ndarray]:
    """`x` as float32 `(n, ...)` and `y` as int `(n,)`, inside the bounds of every attack."""
    for argument, value in (("x", x), ("y", y)):
        if isinstance(value, tf.data.Dataset):
            raise TypeError(
                f"`{argument}` is a tf.data.Dataset, but arrays are needed, so that every artifact "
                "sees the same images. Unbatch it into arrays first: "
                "x, y = map(np.concatenate, zip(*ds.as_numpy_iterator()))."
            )
    checked = check_images(x, None)
    for attack in attacks.values():
        check_images(checked, getattr(attack, "bounds", (0.0, 1.0)))
    labels = as_tensor(y, "y", "an array (n,) of class numbers")
    if labels.dtype == tf.string:
        raise TypeError("`y` holds strings. Give class numbers from 0, and names in `class_names`.")
    soft = labels.shape.rank == 2 and labels.shape[1] != 1 and not is_one_hot(labels.numpy())
    labels = labels if soft else check_labels(labels)
    check_same_length(checked, labels)
    if soft:
        raise ValueError(
            "`y` holds vectors that are not one-hot: what is right cannot be told. Give one class "
            "number for each image."
        )
    return checked.numpy(), labels.numpy()


def check_layout(x, columns) -> None:
    """Raises for images with channels first, where an attack must know rows and columns."""
    if any(getattr(column.attack, "_channels_last", False) for column in columns):
        check_channels_last(tf.convert_to_tensor(x))


def check_artifacts(artifacts) -> dict[str, Artifact]:
    """Name -> opened artifact, in the order given."""
    if not isinstance(artifacts, collections.abc.Mapping):
        raise TypeError(
            "`artifacts` must be a dict name -> model, callable, SavedModel folder, .tflite or "
            f".krz path or URL, got {type(artifacts).__name__}. For a single one give "
            "{'model': model}."
        )
    if not artifacts:
        raise ValueError("`artifacts` is empty. Give at least one, such as {'model': model}.")
    for name in artifacts:
        if not isinstance(name, str) or not name.strip():
            raise TypeError(f"The names of `artifacts` must be non-empty strings, got {name!r}.")
    return {
        name: open_artifact(name, value, f"artifacts[{name!r}]")
        for name, value in artifacts.items()
    }


def probe(artifact: Artifact, batch, argument: str) -> tuple[Artifact, int]:
    """The artifact with what its gradients are like, and its number of classes.

    Raises:
        ValueError: it can't take such a batch, or does not return logits.
    """
    try:
        logits = artifact.predict(batch)
    except Exception as error:  # any component may raise anything here
        raise ValueError(
            f"`{argument}` fails on a batch of `x` of shape {batch.shape}: "
            f"{type(error).__name__}: {str(error).strip()[:300]}"
        ) from error
    classes = check_logits(tf.convert_to_tensor(logits), argument)
    if artifact.kind == "tflite" and _quantized_probabilities(logits):
        raise ValueError(
            f"`{argument}` returned probabilities (rows of multiples of 1/256 that sum to one), "
            "but logits are needed. Export the model without its last softmax."
        )
    return look_at_gradients(artifact, batch), classes


def _quantized_probabilities(logits) -> bool:
    slack = logits.shape[-1] * _STEP / 2 + 1e-3
    return bool(logits.min() >= 0 and np.all(np.abs(logits.sum(-1) - 1) <= slack))


def check_eps_sweep(eps_sweep, attack) -> list[float]:
    """The radii of the accuracy-eps curves, ascending; empty for none.

    `None` means multiples 0, .25, .5, 1, 1.5, 2 and 3 of the eps of `attack`, none for a suite.
    """
    can_rescale = dataclasses.is_dataclass(attack) and any(
        field.name == "eps" for field in dataclasses.fields(attack)
    )
    if eps_sweep is None:
        # A suite at seven radii takes long: only for those who ask for it.
        if not can_rescale or attack.eps == 0 or hasattr(attack, "stages"):
            return []
        return [attack.eps * factor for factor in (0, 0.25, 0.5, 1, 1.5, 2, 3)]
    try:
        radii = list(eps_sweep)
    except TypeError:
        raise TypeError(
            f"`eps_sweep` must be a list of eps, got {eps_sweep!r}. () turns it off."
        ) from None
    bad = [eps for eps in radii if not is_radius(eps)]
    if bad:
        raise ValueError(f"`eps_sweep` must hold finite numbers >= 0, got {bad[0]!r}.")
    if radii and not can_rescale:
        raise TypeError(
            f"`eps_sweep` needs a last attack that is a dataclass with eps, got {attack!r}. Give "
            "eps_sweep=() to turn the sweep off."
        )
    return sorted({float(eps) for eps in radii})


def rescaled(attack, eps):
    """`attack` at another radius; a fixed step size keeps its ratio to eps."""
    step = getattr(attack, "step_size", None)
    scaled = {"step_size": step * eps / attack.eps} if step and attack.eps else {}
    with beyond_range():  # As a curve does on purpose.
        return dataclasses.replace(attack, eps=eps, **scaled)


def check_class_names(class_names, classes: int) -> list[str]:
    """One string a class; their numbers when there are no names."""
    if class_names is None:
        return [str(index) for index in range(classes)]
    names = [str(name) for name in class_names]
    if isinstance(class_names, str) or len(names) != classes:
        raise ValueError(
            f"`class_names` must hold {classes} names, one for each logit, got {len(names)}: "
            f"{class_names!r}."
        )
    return names


def check_histories(histories) -> dict[str, dict[str, list[float]]]:
    """Training curves as lists of floats, from History objects or their dicts."""
    if histories is None:
        return {}
    if not isinstance(histories, collections.abc.Mapping):
        raise TypeError(
            "`histories` must be a dict name -> what `fit` returned, got "
            f"{type(histories).__name__}."
        )
    curves = {}
    for name, history in histories.items():
        values = getattr(history, "history", history)
        if not isinstance(values, collections.abc.Mapping):
            raise TypeError(
                f"`histories[{name!r}]` must be what `fit` returned, or its .history, got "
                f"{type(history).__name__}."
            )
        curves[str(name)] = {
            str(key): [_number(value) for value in np.ravel(series)]
            for key, series in values.items()
        }
    return curves


def _number(value):
    """A float that JSON can hold: None for NaN and infinities."""
    return float(value) if math.isfinite(value) else None


def check_count(name: str, value, least: int) -> int:
    """`value` as an int >= `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"`{name}` must be an int >= {least}, got {name}={value!r}.")
    return int(value)
