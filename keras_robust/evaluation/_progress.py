"""Lines that say how far an evaluation is."""

import sys


class Progress:
    """Sends finished lines to stderr or a callable; on a terminal a line also grows.

    Args:
        target: True for stderr, False for nowhere, or a callable that takes a string.
    """

    def __init__(self, target):
        if not isinstance(target, bool) and not callable(target):
            raise TypeError(f"`progress` must be True, False or a callable, got {target!r}.")
        self._target = _write if target is True else (target or None)
        self._live = target is True and sys.stderr.isatty()
        self._last = ""

    def __call__(self, line: str) -> None:
        """A line that is complete."""
        self.update(line)
        self.done()

    def update(self, line: str) -> None:
        """Replaces the line that is not complete yet."""
        self._last = line
        if self._live:
            sys.stderr.write(f"\r{line[:150]}\x1b[K")
            sys.stderr.flush()

    def done(self) -> None:
        """The line last given is complete."""
        if self._live:
            sys.stderr.write("\r\x1b[K")
        if self._target and self._last:
            self._target(self._last)
        self._last = ""


def _write(line):
    print(line, file=sys.stderr, flush=True)
