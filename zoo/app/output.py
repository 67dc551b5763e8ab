"""Where the results of a program go: `out=<file>`, for every program that has it.

A file is there only once it is complete, and what is already there is never replaced, except by the
program that wrote it.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from zoo.config.errors import ConfigError
from zoo.data.files import whole_file


@contextmanager
def completed(out: Path) -> Iterator[Path]:
    """A file to write, which takes the place of `out` once it is complete.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(out) as part:
            yield part
    except OSError as error:
        raise ConfigError(f"out={out}: cannot be written ({error.strerror})") from error


def check_new(out: Path) -> None:
    """Refuses a file that is already there, or whose folder is not.

    Raises:
        ConfigError: it is so.
    """
    if os.path.lexists(out):  # a link that leads nowhere is somebody's too
        raise ConfigError(f"out={out}: already exists; remove it or name another file")
    if not out.parent.is_dir():
        raise ConfigError(f"out={out}: there is no folder {out.parent}; make it first")


@contextmanager
def text_output(out: Path | None) -> Iterator[TextIO]:
    """Where text goes as it is written, UTF-8: standard output, or a file."""
    if out is None:
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # wherever this runs
        yield sys.stdout
        return
    with completed(out) as part, open(part, "w", encoding="utf-8") as file:
        yield file
