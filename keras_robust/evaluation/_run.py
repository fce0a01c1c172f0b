"""One attack: examples made on every source, tried on every artifact that uses it."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_robust.evaluation._artifacts import Artifact
from keras_robust.evaluation._sources import Source


@dataclasses.dataclass(frozen=True)
class Trial:
    """What all attacks of one evaluation share."""

    artifacts: dict[str, Artifact]
    sources: list[Source]
    x: np.ndarray
    y: np.ndarray
    batch_size: int
    seed: int
    say: Callable

    def first(self, images: int) -> "Trial":
        """The same on the first `images` only."""
        images = min(images, len(self.y))
        return dataclasses.replace(
            self,
            x=self.x[:images],
            y=self.y[:images],
            batch_size=min(self.batch_size, images),
        )


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one attack did.

    Attributes:
        robust: artifact -> `(n,)` bool: correct when clean and on the examples of all sources.
        broken: artifact -> source -> images that were correct and that this source broke.
        labels: artifact -> source -> `(n,)` predicted labels under attack.
        first_batch: source -> `(batch, ...)` adversarial examples of the first batch.
    """

    robust: dict[str, np.ndarray]
    broken: dict[str, dict[str, int]]
    labels: dict[str, dict[str, np.ndarray]]
    first_batch: dict[str, np.ndarray]


def run_attack(trial: Trial, title: str, attack, clean: dict[str, np.ndarray]) -> Outcome:
    """Attacks all images on all sources; `clean` holds the labels predicted without attack."""
    robust = {name: clean[name] == trial.y for name in trial.artifacts}
    broken = {name: {} for name in trial.artifacts}
    labels = {name: {} for name in trial.artifacts}
    first_batch = {}
    for source in trial.sources:
        found = {name: np.empty(len(trial.y), np.int64) for name in source.targets}
        standing = dict.fromkeys(source.targets, 0)
        for index, (rows, count) in enumerate(batches(len(trial.y), trial.batch_size)):
            x, y = trial.x[rows], trial.y[rows]
            x_adv = attack(source.artifact.gradient_model, x, y, seed=trial.seed + index)
            x_adv = _checked(x_adv, x, attack, title)
            if index == 0:
                first_batch[source.name] = x_adv
            for name in source.targets:
                predicted = trial.artifacts[name].predict(x_adv).argmax(-1)[:count]
                found[name][rows[:count]] = predicted
                still = robust[name][rows[:count]] & (predicted == y[:count])
                standing[name] += int(still.sum())
            done = int(index * trial.batch_size + count)
            trial.say.update(_line(title, source, done, len(trial.y), standing))
        trial.say.done()
        for name, predicted in found.items():
            labels[name][source.name] = predicted
            right, fooled = clean[name] == trial.y, predicted != trial.y
            broken[name][source.name] = int((right & fooled).sum())
            robust[name] = robust[name] & ~fooled
    return Outcome(robust, broken, labels, first_batch)


def predictions(artifact: Artifact, x: np.ndarray, batch_size: int) -> np.ndarray:
    """Predicted labels, `(n,)`."""
    labels = np.empty(len(x), np.int64)
    for rows, count in batches(len(x), batch_size):
        labels[rows[:count]] = artifact.predict(x[rows]).argmax(-1)[:count]
    return labels


def batches(length: int, size: int):
    """Row numbers of constant count, the last batch filled up from the start, and how many are new.

    A constant shape, so that every attack and model is traced once.
    """
    for start in range(0, length, size):
        yield np.arange(start, start + size) % length, min(size, length - start)


def _checked(x_adv, x, attack, title) -> np.ndarray:
    """Raises `ValueError` when an attack breaks its promise: a report must not hold it."""
    x_adv = np.asarray(tf.cast(x_adv, tf.float32))
    if x_adv.shape != x.shape or not np.isfinite(x_adv).all():
        raise ValueError(
            f"The attack {title!r} returned an array of shape {x_adv.shape} with "
            f"{int((~np.isfinite(x_adv)).sum())} NaN or infinite values, for inputs of shape "
            f"{x.shape}."
        )
    delta = (x_adv.astype(np.float64) - x).reshape(len(x), -1)
    orders = {"linf": np.inf, "l2": 2, "l1": 1}
    if attack.norm in orders:
        size = np.linalg.norm(delta, orders[attack.norm], axis=1).max()
        if size > attack.eps * (1 + 1e-4) + 1e-5:
            raise ValueError(
                f"The attack {title!r} left its ball: a perturbation has {attack.norm} norm "
                f"{size:.6g}, more than eps={attack.eps:g}."
            )
    low, high = getattr(attack, "bounds", (0.0, 1.0))
    if x_adv.min() < min(low, x.min()) - 1e-5 or x_adv.max() > max(high, x.max()) + 1e-5:
        raise ValueError(
            f"The attack {title!r} left the bounds ({low:g}, {high:g}): its examples lie in "
            f"[{x_adv.min():g}, {x_adv.max():g}]."
        )
    return x_adv


def _line(title, source, done, images, standing) -> str:
    parts = ", ".join(f"{name} {count}" for name, count in standing.items())
    return f"{title} on {source.name}: {done}/{images} images, still standing: {parts}"
