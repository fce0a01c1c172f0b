"""What one attack did to every artifact, image by image."""

import dataclasses

import numpy as np

from keras_robust.evaluation._columns import SEARCH, Column

# In place of a predicted label where logits are NaN: equal to none.
UNDEFINED = -1


@dataclasses.dataclass
class Outcome:
    """Filled in batch by batch.

    Attributes:
        kind: of the column.
        robust: artifact -> `(n,)` bool: correct when clean and on all examples so far.
        broken: artifact -> source -> images that it broke, of those it was given.
        labels: every "stage@source" in the order they ran.
        first: artifact -> `(n,)` int: which of `labels` broke the image first, -1 for none.
        distance: artifact -> `(n,)` float: the smallest perturbation that broke it, infinite for
            none; filled for searches.
        queries: artifact -> rows that it was asked as a black box.
        pictured: images at the start whose examples are kept.
        made_on: "stage@source" -> source.
        stage_of: "stage@source" -> stage.
        examples: "stage@source" -> image number -> adversarial example.
        shown: artifact -> "stage@source" -> image number -> predicted label.
        undefined: artifact -> images that NaN logits broke.
    """

    kind: str
    robust: dict[str, np.ndarray]
    broken: dict[str, dict[str, int]]
    labels: list[str]
    first: dict[str, np.ndarray]
    distance: dict[str, np.ndarray]
    queries: dict[str, int]
    pictured: int
    made_on: dict[str, str]
    stage_of: dict[str, str]
    examples: dict[str, dict[int, np.ndarray]]
    shown: dict[str, dict[str, dict[int, int]]]
    undefined: dict[str, int]

    @classmethod
    def of(cls, column: Column, standing, pictured: int = 0) -> "Outcome":
        """Before anything ran; `standing` is artifact -> `(n,)` bool."""
        return cls(
            kind=column.kind,
            robust={name: good.copy() for name, good in standing.items()},
            broken={name: {} for name in standing},
            labels=[],
            first={name: np.full(len(good), -1) for name, good in standing.items()},
            distance={name: np.full(len(good), np.inf) for name, good in standing.items()},
            queries={},
            pictured=pictured,
            made_on={},
            stage_of={},
            examples={},
            shown={name: {} for name in standing},
            undefined=dict.fromkeys(standing, 0),
        )

    def begin(self, stage, source) -> None:
        """Makes room for a stage on a source, which may have nothing to do."""
        label = f"{stage.label}@{source.name}"
        self.labels.append(label)
        self.made_on[label], self.stage_of[label] = source.name, stage.label
        self.examples[label] = {}
        for name in source.targets:
            self.broken[name].setdefault(source.name, 0)
            self.shown[name][label] = {}
            if source.asked is not None:
                self.queries.setdefault(name, 0)

    def add(self, name, rows, fooled, found) -> None:
        """What a batch of the stage begun last did to one artifact.

        Args:
            name: artifact.
            rows: `(count,)` image numbers.
            fooled: `(count,)` bool: stood before the stage, and misclassified now.
            found: labels, distances, queries and examples of the batch.
        """
        label, hit = self.labels[-1], rows[fooled]
        self.first[name][hit[self.first[name][hit] < 0]] = len(self.labels) - 1
        self.robust[name][hit] = False
        self.broken[name][self.made_on[label]] += len(hit)
        self.undefined[name] += int((found["labels"][name][fooled] == UNDEFINED).sum())
        if self.kind == SEARCH:
            nearest = np.minimum(self.distance[name][hit], found["distance"][fooled])
            self.distance[name][hit] = nearest
        if name in self.queries:
            self.queries[name] += found["queries"]
        for place in np.flatnonzero(rows < self.pictured):
            self.shown[name][label][int(rows[place])] = int(found["labels"][name][place])

    def keep(self, rows, found) -> None:
        """Takes the examples of a batch that are to be pictured."""
        pictured = rows[rows < self.pictured]
        for row, example in zip(pictured, found["shown"], strict=True):
            self.examples[self.labels[-1]][int(row)] = example
