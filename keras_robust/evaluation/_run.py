"""One attack, stage by stage: examples made on every source, tried on all that use it."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_robust.evaluation._artifacts import Artifact
from keras_robust.evaluation._columns import SEARCH, Column
from keras_robust.evaluation._journal import Journal
from keras_robust.evaluation._outcome import UNDEFINED, Outcome
from keras_robust.evaluation._sources import Sources

_ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}


@dataclasses.dataclass(frozen=True)
class Trial:
    """What all attacks of one evaluation share."""

    artifacts: dict[str, Artifact]
    sources: Sources
    x: np.ndarray
    y: np.ndarray
    classes: int
    batch_size: int
    seed: int
    say: Callable
    journal: Journal

    def first(self, images: int) -> "Trial":
        """The same on the first `images` only."""
        images = min(images, len(self.y))
        return dataclasses.replace(
            self,
            x=self.x[:images],
            y=self.y[:images],
            batch_size=min(self.batch_size, images),
        )


def run_column(
    trial: Trial, column: Column, standing: dict[str, np.ndarray], part="table", pictures=False
) -> Outcome:
    """Attacks the images that stand, on all sources.

    All sources of a stage are tried on the same images, those that stood before it, so that
    what a source breaks does not depend on the order of the sources.

    Args:
        trial: artifacts, images and settings.
        column: what to run.
        standing: artifact -> `(n,)` bool, images that it classifies correctly; artifacts that
            are left out are not attacked.
        part: of the evaluation, the first word of the journal's keys.
        pictures: keep the examples of the first batch.
    """
    outcome = Outcome.of(column, standing, trial.batch_size if pictures else 0)
    for stage in column.stages:
        before = {name: good.copy() for name, good in outcome.robust.items()}
        for source in trial.sources.of(stage, standing):
            rows = np.flatnonzero(np.logical_or.reduce([before[t] for t in source.targets]))
            key = (part, column.name, stage.label, source.name)
            _run_source(trial, stage, source, rows, before, outcome, key)
    return outcome


def _run_source(trial, stage, source, rows, before, outcome, key):
    outcome.begin(stage, source)
    left = {name: int(before[name].sum()) for name in source.targets}
    for index, (places, count) in enumerate(
        batches(len(rows), trial.batch_size, filled=source.asked is None)
    ):
        batch = rows[places]
        found = trial.journal.once(
            (*key, index),
            lambda batch=batch, index=index, count=count: _attack_batch(
                trial, stage, source, batch, count, index, outcome.pictured
            ),
        )
        batch = batch[:count]
        outcome.keep(batch, found)
        for name in source.targets:
            fooled = (found["labels"][name] != trial.y[batch]) & before[name][batch]
            left[name] -= int(fooled.sum())
            outcome.add(name, batch, fooled, found)
        done = min((index + 1) * trial.batch_size, len(rows))
        trial.say.update(_line(stage, source, done, len(rows), left, outcome.kind))
    trial.say.done()


def _attack_batch(trial, stage, source, rows, count, index, pictured) -> dict:
    """What one batch of images gives: labels of all targets, distances, queries, pictures."""
    x, y = trial.x[rows], trial.y[rows]
    asked = source.asked() if source.asked else 0
    x_adv = stage.attack(source.model, x, y, seed=trial.seed + index)
    queries = source.asked() - asked if source.asked else 0
    x_adv = _checked(x_adv, x, stage)
    shown = np.flatnonzero(rows[:count] < pictured)
    return {
        "labels": {
            name: predicted(trial.artifacts[name].predict(x_adv))[:count].astype(np.int32)
            for name in source.targets
        },
        "distance": _distance(x_adv, x, stage.attack.norm)[:count],
        "queries": int(queries),
        "shown": x_adv[shown],
    }


def predicted(logits) -> np.ndarray:
    """`(n,)` int, the class of the largest logit; `UNDEFINED`, no label at all, where one is NaN.

    NaN is the largest number for numpy, and would count as the class that it happens to be at.
    """
    logits = np.asarray(logits)
    return np.where(np.isnan(logits).any(-1), UNDEFINED, logits.argmax(-1))


def predictions(artifact: Artifact, x: np.ndarray, batch_size: int) -> np.ndarray:
    """Predicted labels, `(n,)`, `UNDEFINED` where logits are NaN."""
    labels = np.empty(len(x), np.int64)
    for rows, count in batches(len(x), batch_size):
        labels[rows[:count]] = predicted(artifact.predict(x[rows]))[:count]
    return labels


def batches(length: int, size: int, filled: bool = True):
    """Row numbers of each batch, filled up from the start to few sizes, and how many are new.

    Every attack and model is traced once for each size: a batch is full, or, when less than a
    quarter of it is new, a power of two. Not `filled`: no row twice.
    """
    for start in range(0, length, size):
        count = wide = min(size, length - start)
        if filled:
            wide = size if 4 * count >= size else 1 << (count - 1).bit_length()
        yield np.arange(start, start + wide) % length, count


def _distance(x_adv, x, norm) -> np.ndarray:
    """`(n,)` float64 in the attack's norm; l2 where it has another one."""
    delta = (x_adv.astype(np.float64) - x).reshape(len(x), -1)
    return np.linalg.norm(delta, _ORDERS.get(norm, 2), axis=1)


def _checked(x_adv, x, stage) -> np.ndarray:
    """Raises `ValueError` when an attack breaks its promise: a report must not hold it."""
    attack, title = stage.attack, stage.label
    x_adv = np.asarray(tf.cast(x_adv, tf.float32))
    if x_adv.shape != x.shape or not np.isfinite(x_adv).all():
        raise ValueError(
            f"The attack {title!r} returned an array of shape {x_adv.shape} with "
            f"{int((~np.isfinite(x_adv)).sum())} NaN or infinite values, for inputs of shape "
            f"{x.shape}."
        )
    if attack.norm in _ORDERS and attack.eps is not None:
        size = _distance(x_adv, x, attack.norm).max()
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


def _line(stage, source, done, images, left, kind) -> str:
    parts = ", ".join(f"{name} {count}" for name, count in left.items())
    what = "not found" if kind == SEARCH else "still standing"
    return f"{stage.label} on {source.name}: {done}/{images} images, {what}: {parts}"
