"""The processes are real; what they run is small enough to do without TensorFlow."""

import signal
import sys

import pytest

from keras_robust.distribute import launch

HEAD = """if True:
    import json, os, pathlib, signal, sys, time
    config = json.loads(os.environ["TF_CONFIG"])
    index = config["task"]["index"]
    folder = pathlib.Path(sys.argv[1])
"""


def run(folder, code, **settings):
    lines = []
    code = launch([sys.executable, "-c", HEAD + code, str(folder)], say=lines.append, **settings)
    return code, lines


def test_each_worker_finds_its_place(tmp_path):
    code = """
    (folder / str(index)).write_text(" ".join(config["cluster"]["worker"]))
    """
    assert run(tmp_path, code, workers=3) == (0, [])
    told = {(tmp_path / str(index)).read_text() for index in range(3)}
    assert len(told) == 1 and len(set(told.pop().split())) == 3


def test_all_start_again_when_one_is_killed(tmp_path):
    code = """
    (folder / f"{index}-{os.getpid()}").touch()
    mark = folder / "killed"
    if index == 1 and not mark.exists():
        while not list(folder.glob("0-*")):
            time.sleep(0.01)
        mark.touch()
        print("the last words", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    while len(list(folder.glob("1-*"))) < 2:  # in vain, the first time
        time.sleep(0.01)
    """
    code, lines = run(tmp_path, code)
    assert code == 0
    assert lines == [
        "Worker 1 ended with signal SIGKILL.",
        "  the last words",
        "All 2 workers start again (restart 1 of 3).",
    ]
    assert sorted(path.name[0] for path in tmp_path.glob("?-*")) == ["0", "0", "1", "1"]


def test_gives_up_after_the_restarts(tmp_path):
    code = """
    (folder / str(os.getpid())).touch()
    sys.exit(7)
    """
    code, lines = run(tmp_path, code, restarts=1)
    assert code == 7 and sum("start again" in line for line in lines) == 1


@pytest.mark.parametrize("code", [2, 3, 130])
def test_wrong_usage_divergence_and_interruption_are_final(tmp_path, code):
    found, lines = run(tmp_path, f"sys.exit({code})")
    assert found == code and not any("start again" in line for line in lines)


def test_a_signal_is_named(tmp_path):
    code, lines = run(tmp_path, "os.kill(os.getpid(), signal.SIGTERM)", restarts=0)
    assert code == -signal.SIGTERM and "signal SIGTERM" in lines[0]


@pytest.mark.parametrize(("name", "value"), [("workers", 1), ("workers", 2.0), ("restarts", -1)])
def test_settings_are_checked(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be an int >= ., got {name}={value}"):
        launch(["true"], **{name: value})
