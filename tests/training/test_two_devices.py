"""Two logical CPUs train, average, guard and shrink what one device does."""

import functools
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from keras_robust.training import objectives

SCRIPT = pathlib.Path(__file__).with_name("on_two_devices.py")
NAMES = [
    "Madry",
    "one-hot",
    "TRADES",
    "MART",
    "ALP",
    "Mixed",
    "VAT",
    "GradientPenalty",
    "Fast",
    "Fast, aligned",
    "Free",
    "AWP of TRADES",
    "Distil",
    "Distil, rslad",
    "Ensemble",
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    @functools.cache
    def run(what):
        path = tmp_path_factory.mktemp("two") / f"{what}.npz"
        subprocess.run([sys.executable, SCRIPT, what, path], check=True)
        return dict(np.load(path))

    return run


def same(found, name, atol=2e-6):
    """The weights and logs of one device, after those of two were compared with them."""
    single, logs = found[f"{name} single"], found[f"{name} single logs"]
    np.testing.assert_allclose(found[f"{name} mirrored"], single, atol=atol)
    np.testing.assert_allclose(found[f"{name} mirrored logs"], logs, atol=1e-5)
    return single, logs


def test_every_public_objective_is_here():
    abstract = {"Objective", "Carrying", "Wrapping", "Outcome", "Step"}
    names = {name.split(",")[0].split(" ")[0] for name in NAMES} - {"one-hot"}
    assert names == {*objectives.__all__} - abstract


@pytest.mark.parametrize("name", NAMES)
def test_the_single_devices_weights_and_logs(found, name):
    weights, logs = same(found("objectives"), name)
    assert len(logs) == 3 and np.isfinite(logs).all()
    assert np.abs(weights - found("objectives")["start"]).max() > 0.03


def test_xla_is_refused(found):
    assert "`jit_compile`=True cannot be had on several CPUs" in str(found("objectives")["xla"])


@pytest.mark.parametrize("name", ["Madry", "VAT", "Fast"])
def test_replicas_draw_their_own_noise_and_repeat_it(found, name):
    """The noise of each step, `(replicas, steps, rows, inputs)`, on the same rows."""
    first, again = (found("noise")[f"{name} {run}"] for run in range(2))
    assert first.shape == (2, 2, 4, 6)
    np.testing.assert_array_equal(first, again)
    weights = [found("noise")[f"{name} {run} weights"] for run in range(2)]
    np.testing.assert_array_equal(*weights)
    assert np.abs(first[0] - first[1]).max(axis=(1, 2)).min() > 0.01
    assert np.abs(first[:, 0] - first[:, 1]).max(axis=(1, 2)).min() > 0.01


@pytest.mark.parametrize("name", ["Madry", "Free"])
def test_two_replicas_go_on_with_the_orders_the_noise_and_what_they_carry(found, name):
    found = found("noise")
    for what in ("4", "average"):
        np.testing.assert_array_equal(found[f"{name} again {what}"], found[f"{name} whole {what}"])
    assert np.abs(found[f"{name} again 4"] - found[f"{name} again 2"]).max() > 1e-3


@pytest.mark.parametrize("name", ["moving", "mean"])
def test_the_average_is_the_single_devices(found, name):
    """And so is its validation; taken away, the weights are what they were."""
    found = found("callbacks")
    weights, logs = same(found, name)
    assert len(logs) == 6
    average = found[f"{name} single average"]
    np.testing.assert_allclose(found[f"{name} mirrored average"], average, atol=2e-6)
    assert np.abs(average - weights).max() > 1e-3
    np.testing.assert_array_equal(found[f"{name} mirrored after"], found[f"{name} mirrored"])


def test_batch_norm_of_an_average_is_measured(found):
    found = found("callbacks")
    np.testing.assert_allclose(found["measured"], found["seen"], atol=1e-6)


def test_weights_that_the_first_call_makes_are_on_both(found):
    assert found("callbacks")["late"] == 2


def test_the_guard_acts_as_on_one_device(found):
    """It says the same, and puts the same weights back, from which training goes on."""
    found = found("callbacks")
    _, logs = same(found, "guard", atol=1e-4)
    np.testing.assert_allclose(found["guard mirrored seen"], found["guard single seen"], atol=1e-4)
    said = [list(found[f"guard {kind} said"]) for kind in ("single", "mirrored")]
    assert said[0] == said[1] and "put back, and training goes on with Madry()" in said[0][0]
    assert logs[1][-1] > 0.7  # "guard_robust_accuracy"


def test_the_proximal_step_is_the_single_devices(found):
    weights, _ = same(found("callbacks"), "lasso")
    assert np.sum(weights == 0) >= 6  # A neuron is off.
