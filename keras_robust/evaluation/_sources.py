"""Which models the examples for an artifact are made on."""

import collections.abc
import dataclasses

from keras_robust._keras import is_model
from keras_robust.evaluation._artifacts import Artifact, open_artifact


@dataclasses.dataclass(frozen=True)
class Source:
    """A model that examples are made on, and the artifacts that are tried on them.

    Attributes:
        name: of an artifact of the call where it is one, else of the twin.
        artifact: carries the gradient model.
        targets: names of artifacts.
    """

    name: str
    artifact: Artifact
    targets: tuple[str, ...]


def plan_sources(artifacts: dict[str, Artifact], twins, probe) -> list[Source]:
    """Every source once, with all its targets: examples are made once and tried on all.

    An artifact with gradients is attacked on itself. One without is tried on the examples of
    each of its twins, or of every artifact with gradients when no twin is named.

    Args:
        artifacts: opened and probed.
        twins: dict artifact name -> model, name of an artifact, or list or dict of these.
        probe: `(artifact, argument) -> artifact`, checks a twin as an artifact is checked.

    Raises:
        TypeError, ValueError: twins that don't fit.
    """
    planned: dict[str, tuple[Artifact, list[str]]] = {}

    def add(source, target):
        planned.setdefault(source.name, (source, []))[1].append(target)

    extra = _open_twins(artifacts, twins, probe)
    with_gradients = [a for a in artifacts.values() if a.gradient_model is not None]
    for name, artifact in artifacts.items():
        sources = extra.get(name, [])
        if artifact.gradient_model is not None:
            sources = [artifact] + [s for s in sources if s.name != name]
        elif not sources:
            sources = with_gradients
        if not sources:
            raise ValueError(
                f"artifacts[{name!r}] has no gradients, so its adversarial examples must be made "
                "on another model, and there is none. Pass the models it was made from: "
                f"twins={{{name!r}: [fake_quantized_model, float_model]}}."
            )
        for source in sources:
            add(source, name)
    return [Source(name, source, tuple(targets)) for name, (source, targets) in planned.items()]


def _open_twins(artifacts, twins, probe) -> dict[str, list[Artifact]]:
    if twins is None:
        return {}
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
            if twin.gradient_model is None:
                raise ValueError(
                    f"`{argument}` has no gradients itself. Give the Keras model, callable or "
                    "SavedModel that the file was made from."
                )
            if twin not in found[name]:
                found[name].append(twin)
    return found


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
