import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from keras_robust.attacks import PGD
from keras_robust.evaluation import evaluate
from keras_robust.evaluation._journal import Journal

pytestmark = pytest.mark.once

FINGERPRINT = {"x": "1", "seed": "2"}


def silent(_):
    pass


def count_calls(journal, keys):
    calls = []
    values = [journal.once((key,), lambda key=key: calls.append(key) or key * 2) for key in keys]
    journal.close()
    return values, calls


@pytest.mark.parametrize(
    "value",
    [
        {"labels": {"m": np.arange(5, dtype=np.int32)}, "queries": 3},
        {"shown": np.zeros((0, 2, 2), np.float32), "distance": np.array([1.5, np.inf])},
        [{"verdict": "ok", "numbers": {"a": 0.1}, "none": None}],
    ],
)
def test_what_was_written_comes_back_exactly(tmp_path, value):
    journal = Journal(tmp_path, FINGERPRINT, silent)
    assert journal.once(("a", 1), lambda: value) is value
    journal.close()
    again = Journal(tmp_path, FINGERPRINT, silent).once(("a", 1), lambda: pytest.fail("ran"))
    np.testing.assert_equal(again, value)


def test_a_path_may_be_a_folder_or_a_file_or_none(tmp_path):
    count_calls(Journal(tmp_path / "new", FINGERPRINT, silent), "ab")
    count_calls(Journal(tmp_path / "file.log", FINGERPRINT, silent), "ab")
    assert (tmp_path / "new" / "journal.jsonl").exists() and (tmp_path / "file.log").is_file()
    assert count_calls(Journal(None, FINGERPRINT, silent), "aa")[1] == ["a", "a"]
    (tmp_path / "other").write_text("")
    with pytest.raises(ValueError, match="Cannot write"):
        Journal(tmp_path / "other" / "journal.log", FINGERPRINT, silent)


def test_every_cut_is_recovered(tmp_path):
    path = tmp_path / "j.log"
    count_calls(Journal(path, FINGERPRINT, silent), "abc")
    whole = path.read_bytes()
    lengths = np.cumsum([len(line) for line in whole.splitlines(keepends=True)])
    for cut in {*range(0, len(whole), 7), *lengths, *(lengths - 1), *(lengths + 1)} - {
        lengths[-1] + 1
    }:
        path.write_bytes(whole[:cut])
        values, calls = count_calls(Journal(path, FINGERPRINT, silent), "abc")
        kept = max(0, np.searchsorted(lengths, cut, side="right") - 1)
        assert values == ["aa", "bb", "cc"] and calls == list("abc"[kept:])
        assert path.read_bytes() == whole


def test_a_damaged_line_is_run_again_and_said(tmp_path):
    path, lines = tmp_path / "j.log", []
    count_calls(Journal(path, FINGERPRINT, silent), "abc")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"bb"', b'"zz"'))
    values, calls = count_calls(Journal(path, FINGERPRINT, lines.append), "abc")
    assert values == ["aa", "bb", "cc"] and calls == ["b"]
    assert "2 finished parts" in lines[0] and "1 damaged lines" in lines[1]
    assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_other_arguments_are_named(tmp_path):
    count_calls(Journal(tmp_path, FINGERPRINT, silent), "a")
    for other, names in (
        ({"x": "9", "seed": "2"}, "x differs"),
        ({"x": "9", "seed": "9"}, "x, seed differ"),
        ({"x": "1", "seed": "2", "more": "3"}, "more differs"),
    ):
        with pytest.raises(ValueError, match=f"begun with other arguments: {names}. Give the same"):
            Journal(tmp_path, other, silent)


def test_a_file_that_is_no_journal_is_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("mine\n")
    with pytest.raises(ValueError, match="is no journal of this version"):
        Journal(path, FINGERPRINT, silent)
    assert path.read_text() == "mine\n"


# What a killed process ran, and what goes on after it: the sleep gives time to kill it.
SCRIPT = """
import dataclasses, signal, sys, time
import numpy as np
from keras_robust.attacks import PGD
from keras_robust.evaluation import evaluate

class Linear:
    def __init__(self):
        self.weights = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
    def __call__(self, x):
        return x @ self.weights

# A test-suite that runs in the background has its children ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

@dataclasses.dataclass(frozen=True)
class Slow(PGD):
    def __call__(self, model, x, y, seed=0):
        time.sleep(float(sys.argv[2]))
        return super().__call__(model, x, y, seed)

x = np.random.default_rng(1).uniform(0.3, 0.7, size=(60, 12)).astype("float32")
model = Linear()
report = evaluate({"m": model, "n": lambda x: -model(x)}, x, np.arange(60) % 3,
                  [Slow(0.05, steps=3)], batch_size=10, journal=sys.argv[1] or None,
                  eps_sweep=[0.02, 0.05], latency_runs=1, progress=True)
report.save(sys.argv[3])
"""


def start(script, *arguments):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment,
        cwd=root,
        stderr=subprocess.PIPE,
        text=True,
    )


def report_of(folder):
    data = json.loads((folder / "report.json").read_text())
    for artifact in data["artifacts"].values():
        artifact.pop("latency_ms")
    return data


def stop(signal_number, journal, lines, *arguments):
    """Runs until the journal has so many lines, and sends the signal; what was said till then."""
    process = start(SCRIPT, *arguments)
    deadline = time.time() + 300
    while not journal.exists() or journal.read_bytes().count(b"\n") < lines:
        assert time.time() < deadline and process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal_number)
    return process.communicate(timeout=120)[1]


def test_killed_interrupted_and_resumed_gives_the_same_report(tmp_path):
    journal = tmp_path / "journal.jsonl"
    whole = start(SCRIPT, "", 0, tmp_path / "whole")
    stop(signal.SIGKILL, journal, 6, tmp_path, 0.2, tmp_path / "never")
    killed = journal.read_bytes().count(b"\n") - 1
    said = stop(signal.SIGINT, journal, killed + 4, tmp_path, 0.2, tmp_path / "never")
    assert f"journal: {killed} finished parts taken from" in said and "KeyboardInterrupt" in said
    assert not (tmp_path / "never").exists()
    said = start(SCRIPT, tmp_path, 0, tmp_path / "resumed").communicate(timeout=300)[1]
    assert "finished parts taken from" in said
    whole.communicate(timeout=300)
    assert report_of(tmp_path / "resumed") == report_of(tmp_path / "whole")


def test_a_finished_journal_runs_nothing_and_gives_the_very_report(tmp_path, blobs, cnn):
    x, y = blobs(24)
    model, runs = cnn(), []

    class Counted(PGD):
        def __call__(self, model, x, y, seed=0):
            runs.append(len(x))
            return super().__call__(model, x, y, seed)

    def run(**settings):
        settings = {"batch_size": 8, "eps_sweep": [0.02], "journal": tmp_path, **settings}
        attacks = [Counted(0.05, steps=2)]
        return evaluate({"m": model}, x, y, attacks, progress=False, latency_runs=1, **settings)

    first = run()
    count = len(runs)
    assert run().to_dict() == first.to_dict() and len(runs) == count > 0
    with pytest.raises(ValueError, match="other arguments: seed differs"):
        run(seed=1)
    with pytest.raises(ValueError, match="other arguments: batch_size differs"):
        run(batch_size=12)
    with pytest.raises(ValueError, match="other arguments: twins"):
        run(twins={"m": cnn(seed=1)})
    model.set_weights([0.99 * weight for weight in model.get_weights()])
    with pytest.raises(ValueError, match=r"other arguments: artifacts\['m'\] differs"):
        run()


def test_settings_of_an_attack_of_ones_own_count(tmp_path, blobs, cnn):
    class Mine:
        name, norm = "mine", "linf"

        def __init__(self, eps):
            self.eps = eps

        def __call__(self, model, x, y, seed=0):
            return PGD(self.eps, steps=2)(model, x, y, seed=seed)

    x, y = blobs(6)
    settings = {"journal": tmp_path, "progress": False, "latency_runs": 1, "eps_sweep": ()}
    evaluate({"m": cnn()}, x, y, [Mine(0.01)], **settings)
    with pytest.raises(ValueError, match=r"other arguments: attacks\['mine'\] differs"):
        evaluate({"m": cnn()}, x, y, [Mine(0.3)], **settings)
