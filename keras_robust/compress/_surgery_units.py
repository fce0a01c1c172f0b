"""Which channels of a model stand or fall together, and which must stay."""

from typing import NamedTuple

import numpy as np

from keras_robust.compress._surgery_graph import Graph
from keras_robust.compress._surgery_kinds import kind_of


class Use(NamedTuple):
    """A layer with weights: the units of its inputs and outputs, and its first call."""

    call: object
    kind: str
    inputs: np.ndarray
    outputs: np.ndarray
    calls: int


class Units:
    """The units of a model: sets of channels that can only be removed together.

    Each output of a Dense or convolution starts a unit of its own; an Add, or another layer
    that takes its inputs channel by channel, makes one of two. A residual network's stage thus
    has one set of units for all of its blocks. What goes into or comes out of a layer that
    surgery does not know, the model's input and its output stay as they are.

    Attributes:
        graph: the model's calls.
        of: slot -> `(channels,)` int, the unit of each channel on the last axis.
        uses: layer's id -> `Use`, for the layers that have weights.
        fixed: unit -> why it must stay.
        count: one more than the highest unit.
    """

    def __init__(self, model):
        self.graph = Graph(model)
        self._parent: list[int] = []
        self._why: dict[int, str] = {}
        self.of, self.uses = {}, {}
        self.of[self.graph.input] = self._new(self.graph.input, "it is the model's input")
        for call in self.graph.calls:
            self._follow(call)
        self._fix(self.of[self.graph.output], "it makes the model's output")
        self._settle()

    def _follow(self, call) -> None:
        kind, why = kind_of(call)
        given = [self.of[slot] for slot in call.inputs]
        if kind in ("merge", "concatenate") and len({len(ids) for ids in given}) > 1:
            if kind == "merge":
                kind, why = "unknown", "its inputs have different numbers of channels"
        if kind not in ("merge", "concatenate") and len(given) != 1:
            kind, why = "unknown", why or "it takes several inputs"
        made = None if kind == "unknown" else self._made(kind, call, given)
        if made is None:
            why = why or "it reshapes the last axis"
            reason = f"layer {self.graph.names[id(call.layer)]!r} stands in the way: {why}"
            for ids in given:
                self._fix(ids, reason)
            for slot in call.outputs:
                self.of[slot] = self._new(slot, reason)
            return
        self.of[call.outputs[0]] = made
        if kind in ("mix", "depthwise", "norm"):
            old = self.uses.get(id(call.layer))
            calls = 1 if old is None else old.calls + 1
            first = Use(call, kind, given[0], made, 0) if old is None else old
            self.uses[id(call.layer)] = first._replace(calls=calls)

    def _made(self, kind, call, given):
        """The units of the output; None when the channels cannot be followed."""
        ids, slot = given[0], call.outputs[0]
        old = self.uses.get(id(call.layer))
        if old is not None:
            # A layer that is called again has the same weights for all of its inputs.
            self._join(old.inputs, ids)
            return old.outputs
        if kind == "mix":
            return self._new(slot)
        if kind == "depthwise":
            return np.repeat(ids, call.layer.depth_multiplier)
        if kind == "concatenate":
            return np.concatenate(given)
        if kind == "flatten":
            length = slot.shape[-1]
            return None if length is None else np.tile(ids, length // max(len(ids), 1))
        if kind == "reshape" and slot.shape[-1] != len(ids):
            return None
        for other in given[1:]:
            self._join(ids, other)
        return ids

    def _new(self, slot, why: str | None = None) -> np.ndarray:
        channels = (slot.shape[-1] or 0) if slot.shape else 0
        ids = np.arange(len(self._parent), len(self._parent) + channels)
        self._parent.extend(ids.tolist())
        if why is not None:
            self._fix(ids, why)
        return ids

    def _fix(self, ids, why) -> None:
        for one in ids.tolist():
            self._why.setdefault(one, why)

    def _root(self, one: int) -> int:
        while self._parent[one] != one:
            self._parent[one] = self._parent[self._parent[one]]
            one = self._parent[one]
        return one

    def _join(self, some, others) -> None:
        for one, other in zip(some.tolist(), others.tolist(), strict=True):
            self._parent[self._root(other)] = self._root(one)

    def _settle(self) -> None:
        roots = np.array([self._root(one) for one in range(len(self._parent))], int)
        self.fixed = {}
        for one, why in self._why.items():
            self.fixed.setdefault(int(roots[one]), why)
        self.of = {slot: roots[ids] for slot, ids in self.of.items()}
        self.uses = {
            key: use._replace(inputs=roots[use.inputs], outputs=roots[use.outputs])
            for key, use in self.uses.items()
        }

    @property
    def count(self) -> int:
        """One more than the highest unit."""
        return len(self._parent)

    def makers(self) -> dict:
        """Layer's name -> `Use`, of the layers whose outputs start units, in order."""
        names = self.graph.names
        return {names[key]: use for key, use in self.uses.items() if use.kind == "mix"}
