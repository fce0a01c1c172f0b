"""The rounds of a search for tickets, kept in a folder as they end."""

import hashlib
import json
import pathlib

import numpy as np

from keras_robust._files import beside
from keras_robust.compress._iterations import Trained


class Folder:
    """Rounds by number in `path`, or nowhere if that is None.

    Raises:
        ValueError: the folder holds rounds of other settings or other first weights.
    """

    def __init__(self, path, settings: dict, weights: list):
        self.path = None if path is None else pathlib.Path(path)
        if self.path is None:
            return
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(w).tobytes() for w in weights))
        settings = json.loads(json.dumps({**settings, "weights": digest.hexdigest()}))
        file = self.path / "settings.json"
        # Settings without a round are those of a search that failed before its first one ended.
        if not file.exists() or not any(self.path.glob("round_*.npz")):
            with beside(file) as new:
                new.write_text(json.dumps(settings, indent=1))
            return
        found = json.loads(file.read_text())
        other = sorted(k for k in {**found, **settings} if found.get(k) != settings.get(k))
        if other:
            raise ValueError(
                f"`folder`={str(path)!r} holds rounds of a search with another {other[0]}: "
                f"{found.get(other[0])!r}, not {settings.get(other[0])!r}. Give another folder."
            )

    def load(self, number: int) -> Trained | None:
        """A round that has ended, None when it has not."""
        file = None if self.path is None else self._file(number)
        if file is None or not file.exists():
            return None
        with np.load(file, allow_pickle=False) as found:
            numbers = json.loads(str(found["numbers"]))
            return Trained(
                weights=_listed(found, "weights"), last_weights=_listed(found, "last"), **numbers
            )

    def rewound(self) -> list | None:
        """The weights that round 0 kept to go back to, None where there are none."""
        with np.load(self._file(0), allow_pickle=False) as found:
            return _listed(found, "rewound") or None

    def save(self, number: int, trained: Trained, rewound: list | None) -> None:
        if self.path is None:
            return
        numbers = {
            name: getattr(trained, name) for name in ("iteration", "at_best", "at_end", "history")
        }
        groups = {"weights": trained.weights, "last": trained.last_weights, "rewound": rewound}
        arrays = {f"{group}_{i}": w for group, ws in groups.items() for i, w in enumerate(ws or ())}
        with beside(self._file(number)) as new:
            np.savez_compressed(new, numbers=np.array(json.dumps(numbers)), **arrays)

    def _file(self, number):
        return self.path / f"round_{number:03d}.npz"


def _listed(found, group) -> list:
    count = sum(name.startswith(f"{group}_") for name in found.files)
    return [found[f"{group}_{i}"] for i in range(count)]
