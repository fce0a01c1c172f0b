"""Two logical CPUs train the binary layers, and the pruned ones, that one device trains."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).with_name("binary_together.py")
KINDS = ["deterministic", "stochastic", "pruned", "scheduled"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    file = tmp_path_factory.mktemp("together") / "weights.npz"
    subprocess.run([sys.executable, SCRIPT, file], check=True)
    return dict(np.load(file))


def of(trained, start):
    return {name.removeprefix(start): v for name, v in trained.items() if name.startswith(start)}


@pytest.mark.parametrize("kind", KINDS)
def test_one_devices_weights_and_equal_replicas(trained, kind):
    single, other = of(trained, f"single/{kind}/"), of(trained, f"mirrored/{kind}/")
    assert len(single) >= 4 and single.keys() == other.keys()
    # The draws of a step are the same on one device and on each of two.
    for name, weights in single.items():
        np.testing.assert_allclose(other[name], weights, atol=2e-5, rtol=1e-4, err_msg=name)
    for name, copies in of(trained, f"copies/{kind}/").items():
        np.testing.assert_array_equal(*copies, err_msg=name)


def test_each_step_drew_once(trained):
    for kind in ("single", "mirrored"):
        assert trained[f"{kind}/stochastic/conv/count"] == 6
        assert trained[f"{kind}/stochastic/dense/count"] == 6
    moved = trained["single/stochastic/dense/0"] - trained["single/deterministic/dense/0"]
    assert np.abs(moved).max() > 1e-3


def test_zeros_stay_and_the_rounds_add_to_them(trained):
    for kind, share in (("pruned", 0.5), ("scheduled", 0.6)):
        for place in ("conv/0", "dense/0"):
            for strategy in ("single", "mirrored"):
                kernel = trained[f"{strategy}/{kind}/{place}"]
                assert abs(np.mean(kernel == 0) - share) <= 1 / kernel.size, (kind, place)
