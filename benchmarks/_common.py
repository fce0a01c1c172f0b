"""What both benchmarks share: a pinned core, alternating rounds, the machine, the files.

Nothing here may import TensorFlow before `pin` has chosen the core and the threads.
"""

import argparse
import datetime
import gc
import importlib.metadata
import json
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import time

RESULTS = pathlib.Path(__file__).with_name("results")
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
PACKAGES = (
    "tensorflow",
    "numpy",
    "adversarial-robustness-toolbox",
    "foolbox",
    "cleverhans",
    "neural-structured-learning",
)


def parser(description: str, name: str) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--quick", action="store_true", help="tiny settings: does it run?")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--core", type=int, help="CPU to run on; default the last allowed one")
    options.add_argument("--no-peers", action="store_true", help="leave the peers out")
    options.add_argument(
        "--output",
        type=pathlib.Path,
        help=f"JSON file; default results/{name}_<Keras>.json, and none with --quick",
    )
    return options


def pin(core: int | None = None) -> None:
    """Runs this process on one CPU, TensorFlow with one thread; call it first of all."""
    # The CPU time of one thread on one core does not move with what neighbours run.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0)) if core is None else core})
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TQDM_DISABLE", "1")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


class Clock:
    """CPU seconds of the whole process, all threads, and wall seconds between two calls."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def read(self) -> tuple[float, float]:
        return time.process_time() - self._cpu, time.perf_counter() - self._wall


def alternate(variants: dict, rounds: int, steps: int, seed: int = 0) -> dict[str, list]:
    """Runs every variant in every round, in random order.

    Args:
        variants: name -> function of a number of steps; it runs them and returns None, or the
            CPU and wall seconds of a step where it measures itself.
        rounds: how often each variant is measured.
        steps: steps of each variant in a round.
        seed: of the order.

    Returns:
        Name -> CPU and wall milliseconds of a step, one pair a round.
    """
    for run in variants.values():
        run(2)  # Traces, compiles, allocates.
    order, found = random.Random(seed), {name: [] for name in variants}
    for number in range(rounds):
        for name in order.sample(list(variants), len(variants)):
            gc.collect()
            clock = Clock()
            own = variants[name](steps)
            cpu, wall = clock.read() if own is None else (own[0] * steps, own[1] * steps)
            found[name].append((1e3 * cpu / steps, 1e3 * wall / steps))
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return found


def spread(values) -> dict:
    """Median and quartiles, rounded."""
    values = sorted(values)
    low, high = values[0], values[-1]
    if len(values) >= 4:
        low, _, high = statistics.quantiles(values, n=4)
    median = statistics.median(values)
    return {"median": round(median, 3), "low": round(low, 3), "high": round(high, 3)}


def ratios(found: dict[str, list], name: str, reference: str) -> dict:
    """CPU time of `name` over that of `reference`, paired by round: drift cancels out."""
    return spread([a[0] / b[0] for a, b in zip(found[name], found[reference])])


def environment() -> dict:
    """Machine, versions, date and command; no host name and no folder."""
    from keras_robust import __version__
    from keras_robust._keras import NAME

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "command": _command(),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": CORES,
        "python": platform.python_version(),
        "keras": NAME,
        "keras_robust": __version__,
        **versions,
    }


def result_path(options, name: str) -> pathlib.Path | None:
    """Where the result goes; None when nowhere."""
    from keras_robust._keras import LEGACY

    if options.output is not None or options.quick:
        return options.output
    return RESULTS / f"{name}_{'tf_keras' if LEGACY else 'keras3'}.json"


def save(path: pathlib.Path, result: dict) -> None:
    """Writes JSON beside `path` and renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(temporary, path)


def _command() -> str:
    """The call, with folders cut off: they say nothing elsewhere."""
    words = [pathlib.PurePath(w).name if os.path.isabs(w) else w for w in sys.argv[1:]]
    variable = os.environ.get("TF_USE_LEGACY_KERAS", "0")
    script = pathlib.PurePath(sys.argv[0]).name
    return " ".join([f"TF_USE_LEGACY_KERAS={variable} python benchmarks/{script}", *words])


def _commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],
            cwd=pathlib.Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpu() -> str:
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
