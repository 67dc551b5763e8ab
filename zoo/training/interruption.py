"""Signals: they set a flag, and the trainer acts on it between two steps."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any


class Interrupted(BaseException):
    """A signal asked the run to end; its state has been saved.

    Like `KeyboardInterrupt` no `Exception`, so that no handler for failures takes it for one.

    Args:
        number: the signal's number.

    Attributes:
        exit_code: of the process.
        step: that was saved, once it has been.
        run_folder: of the run, if it has one.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)  # What it is made of again in another process.
        self.number = number
        self.exit_code = 128 + number
        self.step: int | None = None
        self.run_folder: Path | None = None

    def __str__(self) -> str:
        at = "" if self.step is None else f" at step {self.step:,}"
        return f"interrupted by {signal.Signals(self.number).name}{at}"


@contextlib.contextmanager
def early_requests() -> Iterator[None]:
    """Answers signals while there is nothing to save; by themselves they would end the process.

    SIGTERM and SIGHUP raise `Interrupted`, and a second one ends the process after all. SIGHUP is
    left alone where it is ignored already, as in `Signals`. SIGUSR1 is ignored from here on.
    """

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Interrupted(number)

    answered = []
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP", "SIGUSR1"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, signal.SIG_IGN if name == "SIGUSR1" else end)
                answered += [number] if name != "SIGUSR1" else []
    try:
        yield
    finally:
        for number in answered:
            signal.signal(number, signal.SIG_DFL)


class OutOfTime(Interrupted):
    """The time limit of a run is over; its state has been saved, and it waits to be resumed.

    Args:
        limit: as it was set.
    """

    def __init__(self, limit: float | str) -> None:
        BaseException.__init__(self, limit)
        self.step = self.run_folder = None
        self.exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again later.

    def __str__(self) -> str:
        return f"trainer.time_limit={self.args[0]} is over"


def queue_signal() -> int | None:
    """The signal by which submitit tells this process that its job is to make room.

    None: it is no such job, or submitit has left the signal alone.
    """
    name = os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")
    number: int | None = getattr(signal, f"SIG{name}", None)
    if "SUBMITIT_EXECUTOR" not in os.environ or number is None:
        return None
    return number if callable(signal.getsignal(number)) else None


class Signals:
    """Notes SIGTERM, SIGHUP and Ctrl-C (end after this step) and SIGUSR1 (save, and go on).

    A second Ctrl-C ends at once. SIGHUP, which a terminal sends when it is closed, is left alone
    where it was ignored from the start: that is what `nohup` does. In a job of submitit, the signal
    of its queue (see `queue_signal`) ends the run after this step, and SIGTERM, which Slurm sends
    before it, saves and goes on. Outside the main thread nothing is installed.
    """

    def __init__(self) -> None:
        self.stop: int | None = None
        self.save = False
        self._saving: set[int] = set()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        self.stop, self.save = None, False
        if threading.current_thread() is threading.main_thread():
            queue = queue_signal()
            hangup, user = getattr(signal, "SIGHUP", 0), getattr(signal, "SIGUSR1", 0)
            self._saving = {user, signal.SIGTERM if queue else user} - {queue}
            for number in {signal.SIGTERM, signal.SIGINT, user, hangup, queue or 0} - {0}:
                if number == hangup and signal.getsignal(number) is signal.SIG_IGN:
                    continue
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number in self._saving:
            self.save = True
            return
        if number == signal.SIGINT and self.stop is not None:
            raise KeyboardInterrupt
        self.stop = number

    def check(self) -> None:
        """Raises `Interrupted` if a signal asked for the end."""
        if self.stop is not None:
            raise Interrupted(self.stop)
