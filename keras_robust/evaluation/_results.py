"""From what the attacks did to the numbers of a report."""

import numpy as np

from keras_robust.evaluation._columns import BALL, CONTROL, SEARCH, Column
from keras_robust.evaluation._intervals import wilson
from keras_robust.evaluation._outcome import UNDEFINED, Outcome

# The outcome of every single image is kept up to so many.
KEPT_IMAGES = 10_000
STANDING, WRONG = -1, -2

Run = tuple[Column, Outcome]


def artifact_results(name: str, runs: list[Run], clean, y, classes: int) -> dict:
    """Accuracies, attribution, distortions and queries of one artifact.

    Args:
        name: artifact.
        runs: every attack and what it did, in order; those that were added last.
        clean: `(n,)` predicted labels without attack.
        y: `(n,)` labels.
        classes: number of classes.
    """
    correct = clean == y
    mine = [(column, outcome) for column, outcome in runs if name in outcome.robust]
    given = [(c, o.robust[name]) for c, o in mine if c.kind != SEARCH and not c.added]
    worst = worst_case(name, runs)
    results = {
        "clean_accuracy": float(correct.mean()),
        "clean_interval": _interval(correct),
        "robust_accuracy": {c.name: float(good.mean()) for c, good in given},
        "robust_interval": {c.name: _interval(good) for c, good in given},
        "worst_case": None if worst is None else float(worst.mean()),
        "worst_case_interval": None if worst is None else _interval(worst),
        "clean_per_class": per_class(correct, y, classes),
        "per_class": {c.name: per_class(good, y, classes) for c, good in given},
        **_attribution(name, mine, correct),
        "sources": {c.name: dict(o.broken[name]) for c, o in mine},
        "stages": {c.name: _stages(c, o, name) for c, o in mine if len(c.stages) > 1},
        "queries": {c.name: o.queries[name] for c, o in mine if o.queries.get(name)},
    }
    distortion = {c.name: _distortion(c, o, name, correct) for c, o in mine if c.kind == SEARCH}
    return {**results, "distortion": distortion} if distortion else results


def worst_case(name: str, runs: list[Run]) -> np.ndarray | None:
    """`(n,)` bool: what withstands every attack that has a radius; None when there is none."""
    balls = [o.robust[name] for c, o in runs if c.kind == BALL and name in o.robust]
    return np.logical_and.reduce(balls) if balls else None


def per_class(good: np.ndarray, y: np.ndarray, classes: int) -> list:
    """The share of `good` in each class; None for a class without images."""
    shares = []
    for label in range(classes):
        rows = y == label
        shares.append(float(good[rows].mean()) if rows.any() else None)
    return shares


def _attribution(name, mine, correct) -> dict:
    """Who broke each image first, in the order in which the attacks ran."""
    labels, first = [], np.where(correct, STANDING, WRONG)
    for column, outcome in mine:
        if column.kind == BALL:
            new = (first == STANDING) & (outcome.first[name] >= 0)
            first[new] = len(labels) + outcome.first[name][new]
            labels += outcome.labels
    tried = [label for _, o in mine for label in o.shown[name]]
    counts = {label: int((first == number).sum()) for number, label in enumerate(labels)}
    kept = [label for label in labels if label in tried]
    # Numbered anew: a stage on another artifact's models has no place in this list.
    number = {labels.index(label): place for place, label in enumerate(kept)}
    outcomes = [number.get(int(value), int(value)) for value in first]
    return {
        "broken_by": {label: counts[label] for label in kept},
        "outcomes": outcomes if len(outcomes) <= KEPT_IMAGES else None,
    }


def _stages(column, outcome, name) -> dict[str, int]:
    """Stage -> images that it broke, of those that the stages before it left."""
    found = {stage.label: 0 for stage in column.stages}
    for number, label in enumerate(outcome.labels):
        found[outcome.stage_of[label]] += int((outcome.first[name] == number).sum())
    return {label.removeprefix(f"{column.name}/"): count for label, count in found.items()}


def _distortion(column, outcome, name, correct) -> dict:
    """Of the images that are right when clean; wrong ones need no perturbation at all."""
    distance = np.where(correct, outcome.distance[name], 0.0)
    found = distance[correct & np.isfinite(distance)]
    return {
        "norm": column.norm,
        "median": float(np.median(found)) if len(found) else None,
        "mean": float(found.mean()) if len(found) else None,
        "found": float(len(found) / correct.sum()) if correct.any() else 0.0,
        "values": [float(d) if np.isfinite(d) else None for d in distance]
        if len(distance) <= KEPT_IMAGES
        else None,
    }


def _interval(good) -> list[float]:
    return list(wilson(int(good.sum()), len(good)))


def make_notes(opened, sources, runs: list[Run], added: list[Column]) -> list[str]:
    """What was done to whom, in sentences."""
    notes = [
        "An image counts as robust only when it is classified correctly both clean and attacked."
    ]
    kinds = {kind: [f'"{c.name}"' for c, _ in runs if c.kind == kind] for kind in (CONTROL, SEARCH)}
    if kinds[CONTROL]:
        notes.append(
            f"{_and(kinds[CONTROL])}: no radius, and so no part of the worst case of the others."
        )
    if kinds[SEARCH]:
        notes.append(
            f"{_and(kinds[SEARCH])}: the smallest perturbation of each image that is right when "
            "clean, no accuracy at a radius."
        )
    for name, artifact in opened.items():
        notes += _made_on(name, artifact, sources)
        notes += _asked(name, runs, added) if name in sources.blind else []
    return notes


def undefined_notes(clean, runs: list[Run]) -> list[str]:
    """Of each artifact with NaN logits, on how many images; `clean` is artifact -> labels."""
    notes = []
    for name, labels in clean.items():
        counts = [(int((labels == UNDEFINED).sum()), "without attack")]
        counts += [(o.undefined.get(name, 0), f"under {c.name}") for c, o in runs]
        parts = [f"{n:,} image{'s' * (n != 1)} {when}" for n, when in counts if n]
        if parts:
            notes.append(f'"{name}" gave NaN logits for {_and(parts)}: these count as wrong.')
    return notes


def _made_on(name, artifact, sources) -> list[str]:
    others = [f'"{s.name}"' for s in sources.gradient if name in s.targets and s.name != name]
    if artifact.gradient_model is None:
        if not others:
            return [f'"{name}" has no gradients: attacks only asked it for its answers.']
        return [
            f'"{name}" has no gradients: adversarial examples of attacks with gradients were made '
            f"on {' and on '.join(others)}, and an image counts as robust only when it withstands "
            f"{'all of them' if len(others) > 1 else 'these'}."
        ]
    notes = []
    if artifact.no_gradient:
        notes.append(
            f'"{name}" has a gradient of exactly zero on {artifact.no_gradient:.0%} of the images '
            "looked at: attacks that follow it find nothing there, which is no robustness."
        )
    if others:
        notes.append(
            f'"{name}" was attacked white-box and with the examples made on '
            f"{' and on '.join(others)}; the worst counts for each image."
        )
    return notes


def _asked(name, runs, added) -> list[str]:
    """What the attacks without gradients that were added found on one artifact."""
    parts = []
    for column in added:
        outcome = next(o for c, o in runs if c is column)
        if name in outcome.robust:
            broken, queries = sum(outcome.broken[name].values()), outcome.queries[name]
            parts.append(f"{column.name} broke {broken:,} with {queries:,} queries")
    if not parts:
        return []
    return [
        f'On the images of "{name}" that withstood all that, attacks ran that only ask it: '
        f"{_and(parts)}. The worst case counts them."
    ]


def _and(parts) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
