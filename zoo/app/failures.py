"""From what went wrong to a line for the user and an exit code.

Exit codes: 0 finished, 1 failed, 2 wrong configuration; after saving: 130 Ctrl-C, 143 SIGTERM and
75 the end of `trainer.time_limit`.
"""

import os
import sys
import traceback

from zoo.app.commands import printable
from zoo.config.errors import ConfigError, one_line
from zoo.training.interruption import Interrupted


def _notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


def failure(error: BaseException) -> tuple[int, str]:
    """The exit code of an exception and what to say about it."""
    if isinstance(error, ConfigError):
        return 2, f"error: {one_line(error)}"
    if isinstance(error, Interrupted):
        return error.exit_code, "\n".join([f"{error}; the state is saved", *_notes(error)])
    if isinstance(error, KeyboardInterrupt):
        return 130, "\n".join(["stopped at once", *_notes(error)])
    torch = sys.modules.get("torch")  # Not imported here: without it there is no such error.
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        advice = "use a smaller data.batch_size with a larger trainer.accumulate"
        return 1, f"error: the device has too little memory ({one_line(error)[:200]}); {advice}"
    if isinstance(error, RuntimeError) and type(error).__module__.startswith("zoo."):
        return 1, f"error: {one_line(error)}"
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return 1, f"error: {error.strerror}{where}"
    return 1, "".join(traceback.format_exception(error)).rstrip()


def report(error: BaseException) -> int:
    """Prints what went wrong to standard error; returns the exit code."""
    code, text = failure(error)
    if os.environ.get("ZOO_TRACEBACK"):
        traceback.print_exception(error)
    print(printable(text), file=sys.stderr, flush=True)
    return code
