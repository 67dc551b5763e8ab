"""Signals: they set a flag, and the trainer acts on it between two steps."""

import signal
import threading
from types import FrameType
from typing import Any


class Interrupted(BaseException):
    """A signal asked the run to end; its state has been saved.

    Like `KeyboardInterrupt` no `Exception`, so that no handler for failures takes it for one.

    Args:
        number: the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number
        self.exit_code = 128 + number

    def __reduce__(self) -> tuple[Any, ...]:  # A job in another process hands it over pickled.
        return type(self), (self.number,)


class OutOfTime(Interrupted):
    """The time limit of a run is over; its state has been saved, and it waits to be resumed.

    Args:
        limit: as it was set.
    """

    def __init__(self, limit: float | str) -> None:
        BaseException.__init__(self, limit)
        self.exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again later.

    def __str__(self) -> str:
        return f"trainer.time_limit={self.args[0]} is over"


class Signals:
    """Notes SIGTERM and Ctrl-C (end after this step) and SIGUSR1 (save after this step, go on).

    A second Ctrl-C ends at once. Outside the main thread nothing is installed.
    """

    def __init__(self) -> None:
        self.stop: int | None = None
        self.save = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        self.stop, self.save = None, False
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGTERM", "SIGINT", "SIGUSR1"):
                number = getattr(signal, name, None)
                if number is not None:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == getattr(signal, "SIGUSR1", None):
            self.save = True
            return
        if number == signal.SIGINT and self.stop is not None:
            raise KeyboardInterrupt
        self.stop = number

    def check(self) -> None:
        """Raises `Interrupted` if a signal asked for the end."""
        if self.stop is not None:
            raise Interrupted(self.stop)
