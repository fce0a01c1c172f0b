"""What a recipe made: a model a stage, and what was counted on each."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Stage:
    """One stage of a recipe, done.

    Args:
        name: "pruned", "clustered" or "quantized".
        model: the stripped plain model; for "quantized" the fake-quantized one.
        history: what `fit` logged, one list of numbers a key.
        layers: one dict a kernel: name, kernel, weights, sparsity_before, sparsity_after,
            distinct_before, distinct_after, and int8_values when quantized.
        broken: a sentence for each promise that was not kept; empty when all were.
        seconds: wall time of the stage.
    """

    name: str
    model: Any
    history: dict
    layers: list[dict]
    broken: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def sparsity(self) -> float:
        """The share of zeros over all kernels, in [0, 1]."""
        weights = sum(row["weights"] for row in self.layers)
        zeros = sum(row["weights"] * row["sparsity_after"] for row in self.layers)
        return zeros / weights if weights else 0.0

    def to_dict(self) -> dict:
        """Everything but the model, ready for JSON."""
        return {
            "name": self.name,
            "sparsity": self.sparsity,
            "seconds": self.seconds,
            "history": {key: [float(v) for v in values] for key, values in self.history.items()},
            "layers": [dict(row) for row in self.layers],
            "broken": list(self.broken),
        }


@dataclass(frozen=True)
class Result:
    """What `Recipe.run` returns.

    Args:
        original: the model that was given, untouched.
        stages: one `Stage` for each stage of the recipe, in order.
    """

    original: Any
    stages: list[Stage]

    @property
    def model(self):
        """The model of the last stage."""
        return self.stages[-1].model

    @property
    def models(self) -> dict:
        """All models by name: "original", then each stage's."""
        return {"original": self.original} | {stage.name: stage.model for stage in self.stages}

    def to_dict(self) -> dict:
        """Everything but the models, ready for JSON."""
        return {"stages": [stage.to_dict() for stage in self.stages]}

    def summary(self) -> str:
        """A table, one line a kernel and stage, to print.

        "values" counts the different values of a kernel, "int8" those of the int8 kernel that
        is shipped: scales by channel can make these more.
        """
        head = ["stage", "layer", "weights", "sparsity", "values", "int8"]
        lines = []
        for stage in self.stages:
            for row in stage.layers:
                lines.append(
                    [
                        stage.name,
                        f"{row['name']}/{row['kernel']}",
                        f"{row['weights']:,}",
                        _change(row["sparsity_before"], row["sparsity_after"], "{:.3f}"),
                        _change(row["distinct_before"], row["distinct_after"], "{:,}"),
                        str(row.get("int8_values", "")),
                    ]
                )
            lines += [[stage.name, f"! {sentence}", "", "", "", ""] for sentence in stage.broken]
        widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
        rule = ["-" * width for width in widths]
        return "\n".join(_row(line, widths) for line in [head, rule, *lines])


def _change(before, after, form: str) -> str:
    after = form.format(after)
    return after if before is None else f"{form.format(before)} -> {after}"


def _row(cells, widths) -> str:
    left = [cell.ljust(width) for cell, width in zip(cells[:2], widths[:2], strict=True)]
    right = [cell.rjust(width) for cell, width in zip(cells[2:], widths[2:], strict=True)]
    return "  ".join(left + right).rstrip()
