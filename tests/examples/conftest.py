"""The examples as modules, where the data that they need are at hand."""

import importlib.util
import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(os.environ.get("KERAS_ROBUST_DATA", ROOT / "../shared/data"))


@pytest.fixture
def data_folder():
    return DATA


@pytest.fixture
def load_example(monkeypatch):
    """`load(name, *files)`: the module of `examples/`, or a skip where a file of data is absent."""

    def load(name, *files):
        missing = [file for file in files if not (DATA / file).exists()]
        if missing:
            pytest.skip(f"{missing[0]} is not at hand")
        monkeypatch.setenv("KERAS_ROBUST_DATA", str(DATA))
        path = ROOT / "examples" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"{name}_example", path)
        monkeypatch.syspath_prepend(path.parent)
        example = importlib.util.module_from_spec(spec)
        # Where dataclasses look their module up.
        monkeypatch.setitem(sys.modules, spec.name, example)
        spec.loader.exec_module(example)
        return example

    return load
