"""Which layers a factorization takes, what it makes of each, and at what error."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from keras_robust.compress._flops import aligned
from keras_robust.compress._graph import check_graph, plain_layers


@dataclass(frozen=True)
class Plan:
    """What a stage does to each layer; print it for a table.

    Attributes:
        rows: one dict a layer: layer, kind, rank (of the kernel, or of each channel's slice of
            it; None where it stays whole), weights_before and weights_after (of kernels, without
            biases), and error: the Frobenius norm of what is lost, relative to the kernel's.
    """

    rows: list[dict]

    @property
    def kept(self) -> float:
        """The share of the weights of these layers that is left."""
        before = sum(row["weights_before"] for row in self.rows)
        return sum(row["weights_after"] for row in self.rows) / before

    def to_dict(self) -> dict:
        """Everything, ready for JSON."""
        return {"rows": [dict(row) for row in self.rows], "kept": self.kept}

    def __str__(self) -> str:
        lines = [["layer", "kind", "rank", "weights", "after", "kept", "relative error"]]
        for row in self.rows:
            before, after = row["weights_before"], row["weights_after"]
            rank = "whole" if row["rank"] is None else str(row["rank"])
            lines.append(
                [row["layer"], row["kind"], rank, f"{before:,}", f"{after:,}"]
                + [f"{after / before:.3f}", f"{row['error']:.4f}"]
            )
        return aligned(lines, left=2)


def choose(model, layers, reason: Callable, verb: str) -> list:
    """The layers of a model that a stage takes, those inside nested models included.

    Args:
        model: a functional or built sequential model.
        layers: None, names, or a function layer -> bool; see `_stage.freeze_layers`.
        reason: layer -> why it cannot be treated, or None.
        verb: such as "factorize", for the errors.

    Raises:
        TypeError, ValueError: a model without a graph, an unknown or ambiguous name, a named
            layer that cannot be treated, or no layer at all.
    """
    check_graph(model)
    offered = plain_layers(model)
    if layers is None or callable(layers):
        chosen = [layer for layer in offered if reason(layer) is None]
        if layers is not None:
            chosen = [layer for layer in chosen if layers(layer)]
    else:
        chosen = [_named(name, offered, reason, verb) for name in layers]
    if not chosen:
        raise ValueError(f"`model` has no layer to {verb}. {_why_none(offered, reason)}")
    return chosen


def _named(name, offered, reason, verb):
    found = [layer for layer in offered if layer.name == name]
    possible = [layer.name for layer in offered if reason(layer) is None]
    if not found:
        raise ValueError(
            f"`layers` names {name!r}, which the model does not have. Layers to {verb}: {possible}."
        )
    if len(found) > 1:
        raise ValueError(
            f"`layers` names {name!r}, but {len(found)} layers of the models inside have that "
            "name. Give them different names, or choose with layers=lambda layer: ..."
        )
    why = reason(found[0])
    if why is not None:
        raise ValueError(f"The layer {name!r} cannot be taken to {verb}: {why}.")
    return found[0]


def _why_none(offered, reason) -> str:
    kernels = {layer.name: reason(layer) for layer in offered if hasattr(layer, "kernel")}
    whys = [f"{name!r}: {why}" for name, why in kernels.items() if why is not None]
    if not whys:
        return f"It has {dict(Counter(type(layer).__name__ for layer in offered))}."
    return "; ".join(whys[:5]) + "."
