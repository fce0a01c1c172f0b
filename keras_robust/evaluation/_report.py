"""What an evaluation found: a table, a JSON file and a web page."""

import copy
import json
from pathlib import Path

from keras_robust._files import beside
from keras_robust.evaluation._compare import Comparison, compare
from keras_robust.evaluation._leaderboard import summary_lines
from keras_robust.evaluation._table import format_table

SCHEMA = 2


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
            share in [0, 1]), `worst_case` over all attacks with a radius per image, their 95%
            intervals, `clean_per_class`, `per_class` (attack -> shares); who broke what:
            `broken_by` ("stage@source" -> images that it broke first), `outcomes` (for each image
            the number of its entry in `broken_by`, -1 when it withstood all, -2 when it was
            wrong without attack), `stages` (suite -> stage -> images), `sources` (attack ->
            model that examples were made on -> images it broke), `queries` (attack -> rows asked
            as a black box); `distortion` (search -> norm, median, mean, share found, values);
            `bytes`, `gzip_bytes`, `size_of`, `latency_ms`, `sweep` (eps -> accuracy), and
            where asked for `corruptions` and `diagnosis`. Besides `data`, `attacks`,
            `leaderboard`, `notes`, `environment`, `seed`, `histories` and `examples`.
        """
        return copy.deepcopy(self._data)

    def table(self) -> str:
        """The table for a terminal, at most 108 columns wide, and the honesty checks below it."""
        from keras_robust.evaluation._diagnosis import format_diagnosis

        parts = (format_table(self._data), format_diagnosis(self._data))
        return "\n\n".join(part for part in parts if part)

    def summary(self) -> str:
        """A line an artifact, the most robust first: accuracies, radius and size."""
        return summary_lines(self._data["leaderboard"])

    def compare(self, other: "Report", pairs=None) -> Comparison:
        """What changed from this report to another: accuracies, sizes and latencies.

        Args:
            other: the later report.
            pairs: dict name of an artifact here -> name there; None pairs equal names.

        Returns:
            `Comparison`: printable, `.rows`, `.to_dict()`. On the same images accuracies are
            compared image by image, with McNemar's test.

        Raises:
            TypeError, ValueError: `other` is no report, or has no such artifacts.
        """
        if not isinstance(other, Report):
            raise TypeError(
                f"`other` must be a Report, got {type(other).__name__}. Load a saved one with "
                "kr.Report.load(folder)."
            )
        return compare(self._data, other._data, pairs)

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
