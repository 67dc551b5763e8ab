"""Direct I/O: a file is written past the page cache.

The page cache would have to find memory for every checkpoint, while the training waits, and would
give up for it what is read in every epoch. Linux has this; other systems, and file systems without
it, write through their cache.
"""

import errno
import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import IO

BLOCK = 1 << 22
"""Bytes of a write: a multiple of every disk's sectors."""


class DirectWriter:
    """Writes a file from its beginning: one block goes to the disk while the next one is filled.

    Args:
        file: open for writing, and empty.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._number = file.fileno()
        # Pages of the system's own, as direct I/O needs aligned ones.
        self._blocks = [memoryview(mmap.mmap(-1, BLOCK)) for _ in range(2)]
        self._filled = self._place = 0
        self._pool = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._direct = False

    def __enter__(self) -> "DirectWriter":
        self._set_direct(True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: object, __: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self._pool.shutdown()  # Nothing is written once the file may be closed.

    def write(self, content: bytes) -> int:
        """Takes bytes over.

        Raises:
            OSError: these or earlier ones cannot be written.
        """
        rest = memoryview(content)
        while rest:
            room = self._blocks[0][self._filled :]
            size = min(len(rest), len(room))
            room[:size] = rest[:size]
            rest = rest[size:]
            self._filled += size
            if self._filled == BLOCK:
                self._hand_over()
        return len(content)

    def flush(self) -> None:
        """Writes what there is, which ends direct I/O: the rest is no multiple of sectors.

        Raises:
            OSError: it, or something before it, cannot be written.
        """
        self._wait()
        self._set_direct(False)
        self._hand_over()
        self._wait()

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _hand_over(self) -> None:
        self._wait()
        block = self._blocks[0][: self._filled]
        self._writing = self._pool.submit(self._put, block, self._place)
        self._place += self._filled
        self._filled = 0
        self._blocks.reverse()

    def _put(self, block: memoryview, place: int) -> None:
        while block:
            try:
                size = os.pwrite(self._number, block, place)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._direct:
                    raise
                self._set_direct(False)  # The disk wants other blocks.
                continue
            block, place = block[size:], place + size

    def _set_direct(self, wanted: bool) -> None:
        flag = getattr(os, "O_DIRECT", 0)
        if not flag or wanted == self._direct:
            return
        import fcntl

        flags = fcntl.fcntl(self._number, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self._number, fcntl.F_SETFL, flags | flag if wanted else flags & ~flag)
        except OSError:  # The file system has none.
            return
        self._direct = wanted
