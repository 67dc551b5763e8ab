"""From what went wrong to a line for the user and an exit code.

Exit codes: 0 finished, 1 failed, 2 wrong configuration; after saving: 130 Ctrl-C, 143 SIGTERM,
129 SIGHUP and 75 the end of `trainer.time_limit`.
"""

import os
import sys
import traceback
from pathlib import Path

from zoo.app.commands import printable
from zoo.config.errors import ConfigError, one_line
from zoo.training.interruption import Interrupted
from zoo.training.shortage import shortage


def failure(error: BaseException) -> tuple[int, str]:
    """The exit code of an exception and what to say about it."""
    if isinstance(error, ConfigError):
        # A part for which there was too little memory is refused, but not for its configuration.
        if error.__cause__ is not None and (lack := shortage(error.__cause__)):
            return 1, f"error: {lack}"
        return 2, f"error: {one_line(error)}"
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return _interruption(error)
    if lack := shortage(error):
        return 1, f"error: {lack}"
    if isinstance(error, RuntimeError) and type(error).__module__.startswith("zoo."):
        return 1, f"error: {one_line(error)}"
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return 1, f"error: {error.strerror}{where}"
    return 1, "".join(traceback.format_exception(error)).rstrip()


def _interruption(error: Interrupted | KeyboardInterrupt) -> tuple[int, str]:
    """What a run that was stopped leaves, and how it goes on."""
    folder: Path | None = getattr(error, "run_folder", None)
    saved = folder is not None and (folder / "checkpoints" / "last.pt").exists()
    code = error.exit_code if isinstance(error, Interrupted) else 130
    if isinstance(error, Interrupted):
        text = f"{error}; the state is saved" if saved else str(error)
    else:
        text = f"stopped at once; {'the last checkpoint stands' if saved else 'nothing is saved'}"
    return code, "\n".join([text, *getattr(error, "__notes__", [])])


def report(error: BaseException) -> int:
    """Prints what went wrong to standard error; returns the exit code."""
    code, text = failure(error)
    if os.environ.get("ZOO_TRACEBACK"):
        traceback.print_exception(error)
    print(printable(text), file=sys.stderr, flush=True)
    return code
