"""Local worker processes, started together and started again when one dies."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence

# Exit codes after which another start would end the same: wrong usage, a loss that is not
# finite, Ctrl-C.
_FINAL = (2, 3, 130, -signal.SIGINT)
_POLL = 0.2


def launch(
    command: Sequence[str],
    workers: int = 2,
    *,
    restarts: int = 3,
    say: Callable[[str], None] = print,
) -> int:
    """Runs `command` as `workers` processes of this machine that train together.

    Each finds its place in TF_CONFIG, where `kr.distribute.strategy()` looks. When one dies
    the others wait for it in vain, so all are ended and started again: give the command a
    folder to resume from. They are not after an exit code that says that another start would
    end the same: 2 wrong usage, 3 training diverged, 130 interrupted. Worker 0 writes to this
    process's stdout and stderr; of another worker the last lines are shown when it fails.

    Args:
        command: program and arguments, the same for all.
        workers: processes, >= 2.
        restarts: how often all are started again before giving up, >= 0.
        say: takes lines of progress.

    Returns:
        0, or the exit code of the first process that failed.

    Raises:
        ValueError: fewer than two workers, or negative restarts.
        KeyboardInterrupt: after the workers ended, which Ctrl-C reaches too.
    """
    if not isinstance(workers, int) or workers < 2:
        raise ValueError(f"`workers` must be an int >= 2, got workers={workers!r}.")
    if not isinstance(restarts, int) or restarts < 0:
        raise ValueError(f"`restarts` must be an int >= 0, got restarts={restarts!r}.")
    for attempt in range(restarts + 1):
        with tempfile.TemporaryDirectory() as folder:
            code = _run_together(list(command), workers, pathlib.Path(folder), say)
        if code == 0 or code in _FINAL or attempt == restarts:
            break
        say(f"All {workers} workers start again (restart {attempt + 1} of {restarts}).")
    return code


def _run_together(command, workers, folder, say) -> int:
    addresses = _free_addresses(workers)
    with contextlib.ExitStack() as stack:
        logs = [None] + [
            stack.enter_context(open(folder / f"{i}", "wb")) for i in range(1, workers)
        ]
        processes = []
        stack.callback(lambda: _end(processes))
        for index, log in enumerate(logs):
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            environment = {**os.environ, "TF_CONFIG": json.dumps(task)}
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        failed = _first_failure(processes)
        if failed is None:
            return 0
        code = processes[failed].returncode
        say(f"Worker {failed} ended with {_meaning(code)}.")
        if failed:
            lines = (folder / f"{failed}").read_text(errors="replace").splitlines()
            for line in lines[-20:]:
                say(f"  {line}")
        return code


def _first_failure(processes):
    """The number of the process that failed first; None when all ended well."""
    while True:
        codes = [process.poll() for process in processes]
        for index, code in enumerate(codes):
            if code not in (None, 0):
                return index
        if None not in codes:
            return None
        time.sleep(_POLL)


def _end(processes) -> None:
    """Ends those that still run; a worker that waits for a dead one hears no gentler signal."""
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()


def _free_addresses(count) -> list[str]:
    # All are open at once, so that no two get the same port.
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def _meaning(code) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
