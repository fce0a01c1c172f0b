"""A way to run a benchmark as a user does."""

import os
import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="session")
def run():
    """`run(script, *arguments, **environment)`: in its own process, which pins itself to a core."""

    def run(script, *arguments, **environment):
        return subprocess.run(
            [sys.executable, str(FOLDER / script), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PYTHONPATH": str(FOLDER.parent), **environment},
        )

    return run
