"""What an evaluation found: a table, a JSON file and a web page."""

import copy
import json
from pathlib import Path

from keras_robust._files import beside
from keras_robust.evaluation._table import format_table

SCHEMA = 1


class Report:
    """Results of `kr.evaluate`; print it, save it, or take the numbers from `to_dict()`.

    Args:
        data: what `to_dict` returns.

    Raises:
        ValueError: `data` is no report, or one of another schema.
    """

    def __init__(self, data: dict):
        if not isinstance(data, dict) or "artifacts" not in data:
            raise ValueError("`data` must be the dict of a report, with the key 'artifacts'.")
        if data.get("schema") != SCHEMA:
            raise ValueError(
                f"`data` has schema {data.get('schema')!r}, but this version of keras_robust reads "
                f"schema {SCHEMA}. Evaluate again, or use the version that wrote it."
            )
        self._data = data

    def to_dict(self) -> dict:
        """Everything, ready for JSON.

        Returns:
            dict with `artifacts`: name -> `kind`, `clean_accuracy`, `robust_accuracy` (attack ->
            share in [0, 1]), `worst_case` over all attacks per image, their 95% intervals,
            `sources` (attack -> model that examples were made on -> images it broke), `bytes`,
            `gzip_bytes`, `size_of`, `latency_ms` and `sweep` (eps -> accuracy); besides `data`,
            `attacks`, `notes`, `environment`, `seed`, `histories` and `examples`.
        """
        return copy.deepcopy(self._data)

    def table(self) -> str:
        """The table for a terminal, at most 108 columns wide."""
        return format_table(self._data)

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        return f"<Report {self._data['title']!r}: {', '.join(self._data['artifacts'])}>"

    def save(self, folder) -> Path:
        """Writes `report.json` and `report.html` into `folder`, which is made if need be.

        Returns:
            Path of `report.html`. The page needs no other file and no network.

        Raises:
            ValueError: `folder` is a file.
        """
        from keras_robust.evaluation._html import render_page

        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"`folder` is {str(folder)!r}, which is a file. Give a folder.")
        # Both are made before either is written: a failure leaves an older report whole.
        page = render_page(self._data)
        numbers = json.dumps(self._data, indent=1, allow_nan=False) + "\n"
        for name, text in (("report.json", numbers), ("report.html", page)):
            with beside(folder / name) as path:
                path.write_text(text, encoding="utf-8", newline="\n")
        return folder / "report.html"

    @classmethod
    def load(cls, path) -> "Report":
        """A saved report, from its folder or its `report.json`.

        Raises:
            ValueError: no such file, or not a report.
        """
        path = Path(path)
        file = path / "report.json" if path.is_dir() else path
        try:
            return cls(json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ValueError(
                f"`path` is {str(path)!r}, but there is no {str(file)!r}. Give the folder that "
                "Report.save wrote."
            ) from None
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{str(file)!r} is not a report: {error}.") from error
