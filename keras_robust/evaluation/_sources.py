"""Which models the examples for an artifact are made on."""

import collections.abc
import dataclasses
from collections.abc import Callable

import numpy as np

from keras_robust._keras import is_model
from keras_robust.evaluation._artifacts import Artifact, open_artifact
from keras_robust.evaluation._gradients import BLIND


@dataclasses.dataclass(frozen=True)
class Source:
    """A model that examples are made on, and the artifacts that are tried on them.

    Attributes:
        name: of an artifact of the call where it is one, else of the twin.
        model: what the attack is given.
        targets: names of artifacts.
        asked: rows that a black box was asked so far; None for a model with gradients.
    """

    name: str
    model: Callable
    targets: tuple[str, ...]
    asked: Callable | None = None


@dataclasses.dataclass(frozen=True)
class Sources:
    """What attacks with and without gradients run on.

    Attributes:
        gradient: every model with gradients once, with all its targets: examples are made once
            and tried on all.
        direct: artifact -> itself, for attacks that only ask it.
        blind: artifacts without gradients, or whose gradient is zero on many images.
        twins: opened twins that are no artifacts themselves.
    """

    gradient: tuple[Source, ...]
    direct: dict[str, Source]
    blind: tuple[str, ...]
    twins: dict[str, Artifact]

    def of(self, stage, names) -> list[Source]:
        """The sources of one stage, cut down to these targets."""
        every = self.gradient if stage.needs_gradient else self.direct.values()
        cut = [
            dataclasses.replace(s, targets=tuple(t for t in s.targets if t in names)) for s in every
        ]
        return [source for source in cut if source.targets]


def plan_sources(artifacts, twins, probe, columns, classes: int) -> Sources:
    """What every attack runs on.

    An artifact with gradients is attacked on itself. One without is tried on the examples of
    each of its twins, or of every artifact with gradients when no twin is named. Models that
    round are a source twice: as they are, and with a gradient that passes straight through.

    Args:
        artifacts: opened and probed.
        twins: dict artifact name -> model, name of an artifact, or list or dict of these.
        probe: `(artifact, argument) -> artifact`, checks a twin as an artifact is checked.
        columns: the attacks; twins are only needed for those with gradients.
        classes: number of logits.

    Raises:
        TypeError, ValueError: twins that don't fit, or none where one is needed.
    """
    extra, opened = _open_twins(artifacts, twins, probe)
    needed = any(stage.needs_gradient for column in columns for stage in column.stages)
    planned: dict[str, tuple[Artifact, list[str]]] = {}
    able = [a for a in artifacts.values() if _differentiable(a)]
    for name, artifact in artifacts.items():
        sources = extra.get(name, [])
        if _differentiable(artifact):
            sources = [artifact] + [s for s in sources if s.name != name]
        elif not sources:
            sources = able
        if not sources and needed:
            raise ValueError(
                f"artifacts[{name!r}] has no gradients, so adversarial examples of attacks with "
                "gradients must be made on another model, and there is none. Pass the models it "
                f"was made from: twins={{{name!r}: [fake_quantized_model, float_model]}}, or "
                "only attacks without gradients such as kr.attacks.Square."
            )
        for source in sources if needed else ():
            planned.setdefault(source.name, (source, []))[1].append(name)
    gradient = [
        source
        for artifact, targets in planned.values()
        for source in _gradient_sources(artifact, tuple(targets))
    ]
    direct = {name: _direct(artifact, classes) for name, artifact in artifacts.items()}
    blind = tuple(name for name, artifact in artifacts.items() if _is_blind(artifact))
    return Sources(tuple(gradient), direct, blind, opened)


def _differentiable(artifact) -> bool:
    return artifact.gradient_model is not None or artifact.straight_through is not None


def _is_blind(artifact) -> bool:
    return artifact.gradient_model is None or artifact.no_gradient >= BLIND


def _gradient_sources(artifact, targets):
    if artifact.gradient_model is not None:
        yield Source(artifact.name, artifact.gradient_model, targets)
    if artifact.straight_through is not None:
        yield Source(f"{artifact.name} (straight-through)", artifact.straight_through, targets)


def _direct(artifact, classes) -> Source:
    from keras_robust.attacks import BlackBox

    if not _is_blind(artifact):
        return Source(artifact.name, artifact.gradient_model, (artifact.name,))
    # Asked through numpy, so that the queries are those of a user of the artifact.
    box = BlackBox(any_batch(artifact), classes)
    return Source(artifact.name, box, (artifact.name,), asked=lambda: box.queries)


def any_batch(artifact) -> Callable:
    """`predict` for batches of changing length: one that is traced by shape sees few of them."""
    if artifact.kind in ("tflite", "endpoint"):
        return artifact.predict

    def predict(x):
        room = (1 << (len(x) - 1).bit_length()) - len(x)
        padded = np.concatenate([x, np.repeat(x[:1], room, axis=0)]) if room else x
        return artifact.predict(padded)[: len(x)]

    return predict


def _open_twins(artifacts, twins, probe):
    """Artifact name -> its twins, and those opened here by their own names."""
    if twins is None:
        return {}, {}
    if not isinstance(twins, collections.abc.Mapping):
        raise TypeError(
            "`twins` must be a dict artifact name -> model or list of models, got "
            f"{type(twins).__name__}."
        )
    opened, taken, found = {}, set(artifacts), {}
    for name, given in twins.items():
        if name not in artifacts:
            raise ValueError(
                f"`twins` names {name!r}, which is none of the artifacts: {', '.join(artifacts)}."
            )
        found[name] = []
        for label, value in _items(given):
            argument = f"twins[{name!r}]" + ("" if label is None else f"[{label!r}]")
            twin = _artifact_of(value, artifacts) or opened.get(id(value))
            if twin is None:
                twin = open_artifact(_fresh(_label(label, value), taken), value, argument)
                twin = opened[id(value)] = probe(twin, argument)
            if not _differentiable(twin):
                raise ValueError(
                    f"`{argument}` has no gradients itself. Give the Keras model, callable or "
                    "SavedModel that the file was made from."
                )
            if twin not in found[name]:
                found[name].append(twin)
    return found, {twin.name: twin for twin in opened.values()}


def _items(given):
    if isinstance(given, collections.abc.Mapping):
        return list(given.items())
    if isinstance(given, (list, tuple)):
        return list(enumerate(given))
    return [(None, given)]


def _artifact_of(value, artifacts):
    """The artifact that `value` names or is."""
    if isinstance(value, str) and value in artifacts:
        return artifacts[value]
    return next((a for a in artifacts.values() if a.origin is value), None)


def _label(label, value) -> str:
    if isinstance(label, str):
        return label
    return value.name if is_model(value) else "twin"


def _fresh(label, taken) -> str:
    name, count = label, 1
    while name in taken:
        count += 1
        name = f"{label} ({count})"
    taken.add(name)
    return name
