"""Two logical CPUs and two worker processes learn the W and b that one device learns."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from keras_robust.distribute import launch

SCRIPT = pathlib.Path(__file__).with_name("train_together.py")
KINDS = ["mirrored", "multi_worker", "multi_worker1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder, lines = tmp_path_factory.mktemp("together"), []
    for kind in ("single", "mirrored"):
        subprocess.run([sys.executable, SCRIPT, kind, folder], check=True)
    command = [sys.executable, str(SCRIPT), "multi_worker", str(folder)]
    assert launch(command, restarts=0, say=lines.append) == 0, lines
    return {path.stem: dict(np.load(path)) for path in folder.glob("*.npz")}


@pytest.mark.parametrize("method", ["svd", "ensemble", "factored"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_one_device_learns(trained, kind, method):
    single, other = trained["single"], trained[kind]
    assert np.linalg.matrix_rank(other[f"{method}_w"], tol=1e-5) == 3
    for name in ("w", "weights", "logs"):
        np.testing.assert_allclose(
            other[f"{method}_{name}"], single[f"{method}_{name}"], atol=2e-5, rtol=1e-4
        )


@pytest.mark.parametrize("method", ["svd", "ensemble", "factored"])
def test_replicas_are_equal_to_the_bit(trained, method):
    workers = [trained[kind][f"{method}_w"] for kind in KINDS[1:]]
    np.testing.assert_array_equal(*workers)
    np.testing.assert_array_equal(*trained["mirrored"][f"{method}_copies"])
