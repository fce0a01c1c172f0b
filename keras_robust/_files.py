"""Files and folders written beside their place and renamed into it; their sizes."""

import contextlib
import gzip
import io
import os
import pathlib
import shutil
import tarfile
import tempfile


@contextlib.contextmanager
def beside(target, folder: bool = False):
    """Yields a temporary path near `target`, which it becomes if all goes well.

    Whatever goes wrong, `target` is as it was and nothing else stays.

    Args:
        target: path of a file, or of a folder, which must not exist or be empty.
        folder: make the temporary path a folder.

    Raises:
        ValueError: the folder of `target` cannot be made or written to.
    """
    target = pathlib.Path(target)
    parent = target.parent
    made = [path for path in (parent, *parent.parents) if not path.exists()]
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


def as_path(path, argument: str, example: str) -> pathlib.Path:
    """`path` as a `pathlib.Path`.

    Raises:
        TypeError: neither text nor a path.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"`{argument}` must be a path such as {example!r}, got {path!r}.")
    return pathlib.Path(path)


def check_writable(path, argument: str) -> None:
    """Raises `ValueError`, before the work, when `path` cannot be written as a file afterwards.

    The folder of `path` is made when missing.
    """
    path = pathlib.Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"`{argument}`: cannot write {str(path)!r}: {error}.") from None
    if path.is_dir():
        raise ValueError(f"`{argument}`: {str(path)!r} is a folder, a file is to be written there.")


def sizes(path) -> tuple[int, int]:
    """Bytes, and bytes once gzipped at level 9: of a file, or of a folder's files as a tar.

    The tar holds sorted names and contents alone: dates and owners would change its size.
    """
    path = pathlib.Path(path)
    if path.is_file():
        return content_sizes(path.read_bytes())
    archive, total = io.BytesIO(), 0
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            content = file.read_bytes()
            entry = tarfile.TarInfo(file.relative_to(path).as_posix())
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
            total += len(content)
    return total, content_sizes(archive.getvalue())[1]


def content_sizes(content: bytes) -> tuple[int, int]:
    """Bytes, and bytes once gzipped at level 9.

    >>> content_sizes(bytes(1000))
    (1000, 29)
    """
    return len(content), len(gzip.compress(content, 9, mtime=0))
