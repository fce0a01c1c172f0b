"""Two logical CPUs, two worker processes, and two of two each, train what one device trains."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from keras_robust.distribute import launch

SCRIPT = pathlib.Path(__file__).with_name("train_together.py")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    lines = []
    for kind in ("single", "mirrored"):
        subprocess.run([sys.executable, SCRIPT, kind, folder], check=True)
    command = [sys.executable, str(SCRIPT)]
    assert launch([*command, "multi_worker", str(folder)], restarts=0, say=lines.append) == 0
    assert launch([*command, "killed", str(folder)], restarts=1, say=lines.append) == 0
    found = {path.stem: dict(np.load(path)) for path in folder.glob("*.npz")}
    return found, lines


def check_same(other, single, objective):
    assert np.ptp(single[objective]) > 0.1
    np.testing.assert_allclose(other[objective], single[objective], atol=2e-6)
    logs = f"{objective}_logs"
    np.testing.assert_allclose(other[logs], single[logs], atol=1e-5)


@pytest.mark.parametrize("objective", ["madry", "trades", "awp", "free"])
@pytest.mark.parametrize("kind", ["mirrored", "multi_worker", "multi_worker-1"])
def test_the_single_devices_weights_and_logs(trained, kind, objective):
    """The workers' Free is interrupted after an epoch, and goes on with each one's own rows."""
    found, _ = trained
    check_same(found[kind], found["single"], objective)


@pytest.mark.once
def test_machines_of_two_devices_train_the_same(trained, tmp_path):
    """The last batch of 5 rows is 2, 1, 1 and 1."""
    command = [sys.executable, str(SCRIPT), "cluster", str(tmp_path)]
    assert launch(command, restarts=0, say=print) == 0
    for worker in ("cluster", "cluster-1"):
        found = dict(np.load(tmp_path / f"{worker}.npz"))
        for objective in ("awp", "free"):
            check_same(found, trained[0]["single"], objective)


def test_pools_of_interrupted_workers_are_those_of_two_devices(trained):
    """A replica draws from its own pool, so that one device trains another network."""
    found, _ = trained
    mirrored = found["mirrored"]
    assert np.abs(mirrored["feedback"] - found["single"]["feedback"]).max() > 1e-4
    for kind in ("multi_worker", "multi_worker-1"):
        for name in ("feedback", "feedback_logs"):
            np.testing.assert_allclose(found[kind][name], mirrored[name], atol=1e-5)


def test_a_killed_worker_costs_an_epoch_at_most(trained):
    found, lines = trained
    assert any("Worker 1 ended with signal SIGKILL" in line for line in lines)
    assert any("start again (restart 1 of 1)" in line for line in lines)
    np.testing.assert_allclose(found["killed"]["madry"], found["single"]["madry"], atol=2e-6)


def test_a_folder_that_workers_do_not_share_is_refused(trained):
    """By each of them, since none may wait for another that has stopped."""
    found, _ = trained
    for kind in ("multi_worker", "multi_worker-1"):
        assert "`resume` must be a folder that all workers share" in str(found[kind]["apart"])


def test_a_batch_with_fewer_rows_than_replicas_is_refused(trained):
    found, _ = trained
    assert "fewer rows than there are replicas" in str(found["mirrored"]["one_row_for_two"])
