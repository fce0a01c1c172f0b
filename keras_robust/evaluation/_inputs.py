"""What `evaluate` is given, checked before anything runs."""

import collections.abc
import dataclasses
import math
import numbers

import numpy as np
import tensorflow as tf

from keras_robust._checks import check_images, check_labels, check_logits, check_same_length
from keras_robust.evaluation._artifacts import Artifact, open_artifact

# How far from a probability vector a row of int8 softmax outputs, in steps of 1/256, can be.
_STEP = 1 / 256


def check_attacks(attacks) -> dict:
    """Name -> attack, in order; None gives FGSM and PGD-20 at 8/255 in linf.

    Raises:
        TypeError: not a list or dict, or something that is no attack.
        ValueError: none, two of one name, or a targeted one.
    """
    if attacks is None:
        from keras_robust.attacks import FGSM, PGD

        attacks = [FGSM(8 / 255), PGD(8 / 255, steps=20)]
    if not isinstance(attacks, (list, tuple, dict)):
        raise TypeError(
            "`attacks` must be a list of attacks or a dict name -> attack, got "
            f"{type(attacks).__name__}. For a single one give attacks=[attack]."
        )
    if not attacks:
        raise ValueError("`attacks` is empty. Give at least one, or None for the default ones.")
    pairs = list(attacks.items() if isinstance(attacks, dict) else enumerate(attacks))
    for key, attack in pairs:
        _check_attack(attack, f"attacks[{key!r}]")
    named = {}
    for key, attack in pairs:
        name = key if isinstance(attacks, dict) else attack.name
        if not isinstance(name, str) or not name:
            raise TypeError(f"The names of `attacks` must be non-empty strings, got {name!r}.")
        if name in named:
            raise ValueError(
                f"`attacks` holds two attacks called {name!r}. Give a dict with a name for each: "
                f"attacks={{{name + ' a'!r}: ..., {name + ' b'!r}: ...}}."
            )
        named[name] = attack
    return named


def _check_attack(attack, argument):
    missing = [part for part in ("name", "eps", "norm") if not hasattr(attack, part)]
    if not callable(attack) or isinstance(attack, type) or missing:
        what = f"the class {attack.__name__}" if isinstance(attack, type) else repr(attack)
        lacks = f" without {', '.join(missing)}" if missing else ""
        raise TypeError(
            f"`{argument}` must be an attack such as kr.attacks.PGD(eps=0.1), with name, eps and "
            f"norm, got {what}{lacks}."
        )
    if not _is_radius(attack.eps):
        raise ValueError(f"`{argument}` must have a finite eps >= 0, got eps={attack.eps!r}.")
    if getattr(attack, "targeted", False):
        raise ValueError(
            f"`{argument}` is targeted, but robust accuracy counts every misclassification. "
            "Leave targeted=False."
        )


def _is_radius(value) -> bool:
    good = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return good and math.isfinite(value) and value >= 0


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
    labels = tf.convert_to_tensor(y)
    if labels.dtype == tf.string:
        raise TypeError("`y` holds strings. Give class numbers from 0, and names in `class_names`.")
    labels = check_labels(labels)
    check_same_length(checked, labels)
    labels = labels.numpy()
    return checked.numpy(), labels.argmax(-1) if labels.ndim == 2 else labels


def check_artifacts(artifacts) -> dict[str, Artifact]:
    """Name -> opened artifact, in the order given."""
    if not isinstance(artifacts, collections.abc.Mapping):
        raise TypeError(
            "`artifacts` must be a dict name -> model, callable, SavedModel folder or .tflite "
            f"path, got {type(artifacts).__name__}. For a single one give {{'model': model}}."
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
    """The artifact, without gradients if none reaches the input, and its number of classes.

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
    if artifact.gradient_model is not None and not _has_gradient(artifact, batch[:1]):
        artifact = dataclasses.replace(artifact, gradient_model=None)
    return artifact, classes


def _quantized_probabilities(logits) -> bool:
    slack = logits.shape[-1] * _STEP / 2 + 1e-3
    return bool(logits.min() >= 0 and np.all(np.abs(logits.sum(-1) - 1) <= slack))


def _has_gradient(artifact, batch) -> bool:
    batch = tf.constant(batch)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(batch)
        logits = artifact.gradient_model(batch)
    try:
        return tape.gradient(logits, batch) is not None
    except LookupError:  # an operation without a registered gradient
        return False


def check_eps_sweep(eps_sweep, attack) -> list[float]:
    """The radii of the accuracy-eps curves, ascending; empty for none.

    `None` means multiples 0, .25, .5, 1, 1.5, 2 and 3 of the eps of `attack`.
    """
    can_rescale = dataclasses.is_dataclass(attack) and any(
        field.name == "eps" for field in dataclasses.fields(attack)
    )
    if eps_sweep is None:
        if not can_rescale or attack.eps == 0:
            return []
        return [attack.eps * factor for factor in (0, 0.25, 0.5, 1, 1.5, 2, 3)]
    try:
        radii = list(eps_sweep)
    except TypeError:
        raise TypeError(
            f"`eps_sweep` must be a list of eps, got {eps_sweep!r}. () turns it off."
        ) from None
    bad = [eps for eps in radii if not _is_radius(eps)]
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
    if step and attack.eps:
        return dataclasses.replace(attack, eps=eps, step_size=step * eps / attack.eps)
    return dataclasses.replace(attack, eps=eps)


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
