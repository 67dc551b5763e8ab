"""The checksums of a `torch.save` archive, taken on several threads.

Such an archive is a zip file of uncompressed parts, each with its CRC-32. Torch takes them on one
thread while it writes, and does not look at them when it reads. Here the parts are gone through
beside each other, with zlib's function, which leaves Python's lock: writing and reading then take
little longer than without any checksum. Every reader of zip files finds the archive whole.
"""

import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import IO, Any, NamedTuple, TypeVar

from torch.serialization import get_crc32_options, set_crc32_options

Read = TypeVar("Read")

THREADS = min(4, os.cpu_count() or 1)
_BLOCK = 1 << 20
_LOCAL, _DESCRIPTOR, _CENTRAL = b"PK\x03\x04", b"PK\x07\x08", b"PK\x01\x02"


class DamagedError(Exception):
    """Part of an archive is not what was written; the message is its name."""


class _Part(NamedTuple):
    """A part of an archive: its checksum by the directory, and where its bytes and entry are."""

    name: str
    checksum: int
    start: int
    size: int
    entry: int


def _parts(file: IO[bytes]) -> Iterator[_Part]:
    """The parts of an archive.

    Raises:
        DamagedError: one is not as torch writes it.
        zipfile.BadZipFile: it is no archive.
    """
    with zipfile.ZipFile(file) as archive:
        entry = archive.start_dir  # Documented nowhere, and there since Python 2.
        for info in archive.infolist():
            head = os.pread(file.fileno(), 30, info.header_offset)
            if len(head) < 30 or head[:4] != _LOCAL:
                raise DamagedError(info.filename)
            name, extra = struct.unpack("<HH", head[26:])
            # Torch takes a part with a directory's attribute for empty, and does not say so.
            if info.external_attr or info.compress_type or info.file_size != info.compress_size:
                raise DamagedError(info.filename)
            start = info.header_offset + 30 + name + extra
            yield _Part(info.filename, info.CRC, start, info.file_size, entry)
            lengths = struct.unpack("<HHH", os.pread(file.fileno(), 6, entry + 28))
            entry += 46 + sum(lengths)


def _checksum(file: IO[bytes], part: _Part) -> int:
    place, end, found = part.start, part.start + part.size, 0
    while place < end:
        block = os.pread(file.fileno(), min(_BLOCK, end - place), place)
        if not block:
            raise DamagedError(part.name)
        found, place = zlib.crc32(block, found), place + len(block)
    return found


def _checksums(pool: Executor, file: IO[bytes]) -> list[tuple[_Part, Future[int]]]:
    """The parts of an archive with the checksums of their bytes, which are being taken."""
    # The largest first, so that none is left to a single thread at the end.
    parts = sorted(_parts(file), key=lambda part: -part.size)
    return [(part, pool.submit(_checksum, file, part)) for part in parts]


def save(write: Callable[[IO[bytes]], Any], file: IO[bytes]) -> None:
    """Has an archive written without checksums, and enters them.

    Args:
        write: writes it with `torch.save`.
        file: open for writing and reading, and empty.
    """
    before = get_crc32_options()
    set_crc32_options(False)
    try:
        write(file)
    finally:
        set_crc32_options(before)
    file.flush()
    with ThreadPoolExecutor(THREADS + 1) as pool:
        # What is written goes to the disk meanwhile, so that a later flush has little left to do.
        flushed = pool.submit(os.fsync, file.fileno())
        try:
            for part, checksum in _checksums(pool, file):
                _enter(file, part, checksum.result())
        except DamagedError:  # A torch that writes in another way enters its own.
            file.seek(0)
            file.truncate()
            write(file)
        flushed.result()


def _enter(file: IO[bytes], part: _Part, checksum: int) -> None:
    """Enters a checksum behind the part and into the directory."""
    places = ((part.start + part.size, _DESCRIPTOR, 4), (part.entry, _CENTRAL, 16))
    for place, mark, offset in places:
        if os.pread(file.fileno(), 4, place) != mark:
            raise DamagedError(part.name)
        os.pwrite(file.fileno(), struct.pack("<I", checksum), place + offset)


def verified(load: Callable[[IO[bytes]], Read], file: IO[bytes]) -> Read:
    """What is loaded from an archive, while every byte of its content is verified.

    Args:
        load: reads it with `torch.load`.
        file: open for reading.

    Raises:
        DamagedError: something is not what was written, whatever `load` makes of it.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        sums = _checksums(pool, file)
        file.seek(0)
        try:
            return load(file)
        finally:
            for part, checksum in sums:
                if checksum.result() != part.checksum:
                    raise DamagedError(part.name)
