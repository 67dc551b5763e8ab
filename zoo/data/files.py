"""Where files are, and files that are written completely or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


def locate(name: str, root: str | Path) -> Path:
    """A file or folder of the user's: from where they stand or, if it is not there, within `root`.

    So ``predict=x`` and ``data.folder=x`` are the same place, ``.`` included. No name at all
    means ``root`` itself.

    Args:
        name: the path; ``~`` is the home folder.
        root: folder of all data.
    """
    path = Path(name).expanduser()
    # An absolute path stays as it is.
    return path if name and path.exists() else Path(root) / path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a temporary path in the same folder, whose file takes the place of ``path`` at the end.

    It is synced to disk before it is renamed, so that a reader of ``path`` sees all of it, after a
    power failure too. If the block raises, the temporary file is deleted and ``path`` stays as it
    was. The temporary file is always a new one, so that no link that lies there is followed.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield part
        with open(part, "rb+") as file:  # Windows syncs only what is open for writing
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


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
