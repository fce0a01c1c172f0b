"""Results of other settings are not mixed."""

import argparse
import pathlib

import pytest

pytestmark = pytest.mark.once


def test_a_folder_belongs_to_its_settings(load_example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of = load_example("_results").folder_of

    def ask(**settings):
        given = {"output": None, "quick": False, "epochs": None, "rows": None, **settings}
        return folder_of(argparse.Namespace(**given), "name", "rows")

    assert ask() == ask(rows=["a"]) == pathlib.Path("name/full")
    assert ask(quick=True, epochs=3) == pathlib.Path("name/quick")
    with pytest.raises(SystemExit, match="name/quick holds results of other settings"):
        ask(quick=True)
    assert ask(output=tmp_path / "own", epochs=3) == tmp_path / "own"
    with pytest.raises(SystemExit, match="Give another --output"):
        ask(output=tmp_path / "own", epochs=4)
