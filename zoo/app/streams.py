"""Standard output that outlives its reader: a pipe that was closed, a terminal that has gone."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


class _Lasting:
    """A text stream that writes to nowhere once nobody reads it any more.

    A run is not to fail because `head` has seen enough, or because its terminal was closed.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._unread():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._unread():
            self._stream.flush()

    @contextlib.contextmanager
    def _unread(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            # What is buffered, and what Python flushes at its end, goes there too.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Inside the block nothing that is printed can fail, whatever the stream and its encoding."""
    before = sys.stdout, sys.stderr
    with contextlib.ExitStack() as stack:
        for name, stream in zip(("stdout", "stderr"), before, strict=True):
            if stream is None:  # The process was started without one.
                stream = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            errors = getattr(stream, "errors", None)
            if errors == "strict" and hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
                stack.callback(stream.reconfigure, errors=errors)
            setattr(sys, name, _Lasting(stream))
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(ValueError):  # Closed.
                    stream.flush()
            sys.stdout, sys.stderr = before
