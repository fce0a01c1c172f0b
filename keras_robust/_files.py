"""Files are written beside their place and renamed, so that no failure damages one."""

import os
import pathlib
import tempfile


def write_atomically(path, write) -> None:
    """Calls `write(file)` with a new binary file that then takes the place of `path`.

    Args:
        path: where the file is to be; its folder must exist.
        write: function of a writable binary file.
    """
    path = pathlib.Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
