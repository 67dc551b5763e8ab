"""Files that are written completely or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a temporary path in the same folder, whose file takes the place of ``path`` at the end.

    It is synced to disk before it is renamed, so that a reader of ``path`` sees all of it, after a
    power failure too. If the block raises, the temporary file is deleted and ``path`` stays as it
    was. Each process has a temporary file of its own.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with open(part, "rb+") as file:  # Windows syncs only what is open for writing
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def own_path(root: str | Path, name: str | Path) -> Path:
    """Where a file or folder of the user's is: from where they stand, or else within ``root``.

    So it is the same place as for any program: ``predict=x`` and ``data.folder=x`` agree. No name
    at all means ``root`` itself.
    """
    path = Path(name)
    return path if path.exists() and path != Path() else Path(root) / path


@contextlib.contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Makes a folder; if the block raises, those that were made and are empty go again."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for path in made:  # The innermost first.
                path.rmdir()
        raise


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # folders cannot be opened there
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
