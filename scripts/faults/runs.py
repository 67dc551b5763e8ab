"""Runs of train.py as processes of their own, to which something happens at a given moment."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CLOCK = "FAKETIME_TIMESTAMP_FILE"
"""The variable that names the file in which libfaketime finds the time."""


def faketime() -> Path | None:
    """The library of libfaketime, where Debian and its relatives have it; None: it is not here."""
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


def under_faketime(library: Path, clock: Path) -> dict[str, str]:
    """The environment of runs whose clock says what a file says: `+0`, `-3d`."""
    return {
        "LD_PRELOAD": str(library),
        CLOCK: str(clock),
        **dict.fromkeys(("FAKETIME_NO_CACHE", "NO_FAKE_STAT"), "1"),
        **dict.fromkeys(("DONT_FAKE_MONOTONIC", "FAKETIME_DONT_FAKE_MONOTONIC"), "1"),
    }


class Runs:
    """Starts train.py again and again.

    The processes are forked from one that has imported torch and computed nothing, which saves
    seconds for each. They can be told to die, or to be sent a signal: see `moments.py`.

    Args:
        limit: seconds that a run may take before it is killed; None: as long as it wants.
        environment: variables besides those of this process.
    """

    def __init__(
        self, *, limit: float | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._limit, self.environment = limit, environment or {}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("spawner.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **self.environment},
            start_new_session=True,  # Ctrl-C is for whoever starts the runs.
        )

    def _ask(self, **request: Any) -> Any:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, words: Sequence[object], log: object, **moments: Any) -> int:
        """Starts a run and returns its process number."""
        number: int = self._ask(words=[str(word) for word in words], log=str(log), **moments)
        return number

    def wait(self, number: int, *, when_stopped: Callable[[], None] = lambda: None) -> int:
        """Waits for the end of a process and returns its exit code, negative for a signal.

        Args:
            number: of the process.
            when_stopped: is called where it has been stopped (SIGSTOP), and is to go on then.

        Raises:
            TimeoutError: it took longer than the limit, and was killed.
        """
        late: list[int] = []

        def end() -> None:
            late.append(number)
            os.kill(number, signal.SIGKILL)

        timer = None if self._limit is None else threading.Timer(self._limit, end)
        if timer is not None:
            timer.start()
        try:
            while (answer := self._ask(wait=number)) == "stopped":
                when_stopped()
                os.kill(number, signal.SIGCONT)
        finally:
            if timer is not None:
                timer.cancel()
        if late:
            raise TimeoutError(f"took more than {self._limit:.0f} s")
        code: int = answer
        return code

    def __call__(self, words: Sequence[object], log: object, **moments: Any) -> int:
        """Runs to the end and returns the exit code."""
        return self.wait(self.start(words, log, **moments))

    def close(self) -> None:
        """Ends the process, and whatever it has started that is still there."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
