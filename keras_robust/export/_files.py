"""Files and folders written beside their place and renamed into it; their sizes."""

import contextlib
import gzip
import os
import pathlib
import shutil
import tempfile


@contextlib.contextmanager
def beside(target: pathlib.Path, folder: bool):
    """Yields a temporary path in the folder of `target`, which it becomes if all goes well.

    Raises:
        ValueError: the folder of `target` cannot be made or written to.
    """
    parent = target.parent
    made = _missing(parent)
    temporary = None
    try:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=parent))
        except OSError as error:
            raise ValueError(
                f"Cannot write {str(target)!r}: {error}. Give a path in a folder that you may "
                "write to."
            ) from error
        inside = temporary / target.name
        if folder:
            inside.mkdir()
        yield inside
        os.replace(inside, target)
        made = []
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        for path in made:  # Deepest first; one that others have filled meanwhile stays.
            with contextlib.suppress(OSError):
                path.rmdir()


def _missing(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in (folder, *folder.parents) if not path.exists()]


def sizes(path) -> tuple[int, int]:
    """Bytes, and bytes once gzipped, of a file or of all files in a folder."""
    path = pathlib.Path(path)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    contents = [file.read_bytes() for file in files]
    return sum(map(len, contents)), sum(len(gzip.compress(c, 9, mtime=0)) for c in contents)
