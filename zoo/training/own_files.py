"""How the files of a run are written: in one step, and never through a link.

A run folder may come from somebody else, and a link in it may lead to any file of the user's.
"""

import contextlib
import json
import math
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TextIO


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Has an error of writing name the file: the system names it only where it opens one."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` once it is complete and on the disk.

    Its temporary name is one that nobody has taken; a process that is killed leaves it behind.
    """
    temporary = _beside(path)
    file = open(temporary, "xb+")  # noqa: SIM115 - nothing is to be removed where this fails
    try:
        with naming(path), file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def link(source: Path, target: Path) -> None:
    """Makes `target` the same file as `source`, replacing what is there in one step."""
    if target.exists() and target.samefile(source):
        return  # To rename one name of a file to another does nothing at all.
    temporary = _beside(target)
    try:
        os.link(source, temporary)
    except OSError:  # A file system without hard links.
        with open(source, "rb") as old, replacing(target) as new:
            while block := old.read(1 << 24):
                new.write(block)
        return
    os.replace(temporary, target)


def appending(path: Path) -> TextIO:
    """A text file, new or not, to write at its end.

    Raises:
        OSError: it is a link.
    """
    return open(path, "a", encoding="utf-8", opener=_without_links)


def to_json(content: Any, *, indent: int | None = None) -> str:
    """Plain Python as JSON, which knows no NaN and no infinity: they become null."""
    return json.dumps(_finite(content), indent=indent, allow_nan=False)


def _finite(content: Any) -> Any:
    match content:
        case float() if not math.isfinite(content):
            return None
        case dict():
            return {key: _finite(value) for key, value in content.items()}
        case list() | tuple():
            return [_finite(value) for value in content]
    return content


def sync_folder(folder: Path) -> None:
    """Makes a rename in the folder survive a power failure, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def links_in(folder: Path) -> Iterator[Path]:
    """The symbolic links below a folder, which may be one itself."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if (path := Path(place) / name).is_symlink():
                yield path


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")


def _without_links(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
