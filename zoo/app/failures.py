"""From what went wrong to a line for the user and an exit code.

Exit codes: 0 finished, 1 failed, 2 wrong configuration, 130 Ctrl-C and 143 SIGTERM after saving.
"""

import os
import sys
import traceback

from zoo.config.errors import ConfigError, one_line
from zoo.training.interruption import Interrupted
from zoo.training.shortage import shortage


def failure(error: BaseException) -> tuple[int, str]:
    """The exit code of an exception and what to say about it."""
    if isinstance(error, ConfigError):
        return 2, f"error: {one_line(error)}"
    if isinstance(error, Interrupted):
        return error.exit_code, f"{error}; the state is saved"
    if isinstance(error, KeyboardInterrupt):
        return 130, "stopped at once; the last checkpoint stands"
    if lack := shortage(error):
        return 1, f"error: {lack}"
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
    print(text, file=sys.stderr, flush=True)
    return code
