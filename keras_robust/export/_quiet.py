"""Keeps what the converter and the interpreter print off the user's terminal."""

import contextlib
import logging
import os
import sys
import tempfile
import warnings

LOGGER = logging.getLogger("keras_robust.export")


@contextlib.contextmanager
def quiet():
    """Sends file descriptors 1 and 2 to the debug log of "keras_robust.export".

    The chatter comes from C++, past `sys.stderr`, so that nothing less than the
    descriptors will do. Warnings of the converter itself are dropped.
    """
    try:
        saved = os.dup(1), os.dup(2)
    except OSError:  # Closed, as under pythonw: nothing would be seen anyway.
        yield
        return
    _flush()
    try:
        with tempfile.TemporaryFile() as sink:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    yield
            finally:
                _flush()
                os.dup2(saved[0], 1)
                os.dup2(saved[1], 2)
                sink.seek(0)
                text = sink.read().decode(errors="replace").strip()
                if text:
                    LOGGER.debug("%s", text)
    finally:
        os.close(saved[0])
        os.close(saved[1])


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
