"""The checksums of a `torch.save` archive, which cost next to nothing.

Such an archive is a zip file of uncompressed parts, each with its CRC-32. Torch takes them slowly
while it writes, and does not look at them when it reads. Here a faster function takes them, and
several threads verify them as they read. Every reader of zip files finds the archive whole.
"""

import os
import re
import struct
import sys
import zipfile
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, NamedTuple

import torch
from torch.serialization import get_crc32_options, set_crc32_options, skip_data
from zlib_ng import zlib_ng

from zoo.training.checkpoints.direct_io import DirectWriter

THREADS = min(4, os.cpu_count() or 1)
_BLOCK = 1 << 20
_TENSOR = re.compile(r".*/data/\d+")
_LOCAL, _DESCRIPTOR, _CENTRAL = b"PK\x03\x04", b"PK\x07\x08", b"PK\x01\x02"
_DESCRIBED = 8  # The flag of a part that a descriptor follows.


class DamagedError(Exception):
    """Part of an archive is not what was written; the message is its name."""


class _Part(NamedTuple):
    """A part of an archive: its checksum by the directory, and where its bytes are."""

    name: str
    checksum: int
    start: int
    size: int


def _parts(file: IO[bytes]) -> Iterator[_Part]:
    """The parts of an archive.

    Raises:
        DamagedError: one is not as torch writes it.
        zipfile.BadZipFile: it is no archive.
    """
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            head = os.pread(file.fileno(), 30, info.header_offset)
            if len(head) < 30 or head[:4] != _LOCAL:
                raise DamagedError(info.filename)
            name, extra = struct.unpack("<HH", head[26:])
            # Torch takes a part with a directory's attribute for empty, and does not say so.
            if info.external_attr or info.compress_type or info.file_size != info.compress_size:
                raise DamagedError(info.filename)
            start = info.header_offset + 30 + name + extra
            yield _Part(info.filename, info.CRC, start, info.file_size)


def _checksum(file: IO[bytes], part: _Part, room: memoryview | None) -> int:
    """The checksum of a part as the file has it now, which is read into `room` if there is any."""
    block = memoryview(b"" if room else bytearray(min(_BLOCK, part.size)))
    found = done = 0
    while done < part.size:
        size = min(_BLOCK, part.size - done)
        place = block[:size] if room is None else room[done : done + size]
        count = os.preadv(file.fileno(), [place], part.start + done)
        if not count:
            raise DamagedError(part.name)
        found, done = zlib_ng.crc32(place[:count], found), done + count
    return found


class _Entering:
    """Enters into an archive, on its way from torch to a file, the checksums that torch leaves out.

    Args:
        file: to which the archive goes on.

    Attributes:
        complete: whether all have been entered.
    """

    def __init__(self, file: DirectWriter) -> None:
        self.complete = False
        self.flush = file.flush
        self._file, self._pieces = file, self._entered()
        next(self._pieces)

    def write(self, piece: bytes) -> int:
        self._file.write(self._pieces.send(piece))
        return len(piece)

    def _entered(self) -> Generator[bytes, bytes, None]:
        """Takes the pieces in which torch writes an archive, and gives what they become.

        Each part is a header, its name, padding, its content, and a descriptor with the checksum of
        that. At the end is the directory, with all of them once more.
        """
        sums = []
        piece = yield b""
        while len(piece) == 30 and piece[:4] == _LOCAL:
            flags, name, padding = struct.unpack_from("<6xH18xHH", piece)
            for length in (name, padding):
                piece = (yield piece) if length else piece
            piece = yield piece
            if not flags & _DESCRIBED:  # It is empty.
                sums.append(0)
                continue
            sums.append(zlib_ng.crc32(piece))
            length, piece = len(piece), (yield piece)
            if piece[:4] != _DESCRIPTOR or struct.unpack_from("<I", piece, 8)[0] != length % 2**32:
                break
            piece = yield _DESCRIPTOR + struct.pack("<I", sums[-1]) + bytes(piece[8:])
        if piece[:4] == _CENTRAL:
            directory, entry = bytearray(piece), 0
            for checksum in sums:
                struct.pack_into("<I", directory, entry + 16, checksum)
                entry += 46 + sum(struct.unpack_from("<HHH", directory, entry + 28))
            self.complete = entry == len(directory)
            piece = bytes(directory)
        while True:
            piece = yield piece


def save(state: Any, file: IO[bytes]) -> None:
    """What `torch.save` does, in less time.

    Args:
        state: plain Python and tensors.
        file: open for writing, and empty.
    """
    before = get_crc32_options()
    set_crc32_options(False)
    try:
        with DirectWriter(file) as writer:
            entering: Any = _Entering(writer)
            torch.save(state, entering)
    finally:
        set_crc32_options(before)
    if not entering.complete:  # A torch that writes in another way enters its own.
        file.truncate(0)
        torch.save(state, file)


def _checksums(
    file: IO[bytes], room: Mapping[_Part, memoryview | None]
) -> Iterator[tuple[_Part, int]]:
    """The parts of an archive with the checksums of their bytes, in no order."""
    # By size and in turns, so that the threads end together.
    parts = sorted(room, key=lambda part: -part.size)

    def share(number: int) -> list[tuple[_Part, int]]:
        return [(part, _checksum(file, part, room[part])) for part in parts[number::THREADS]]

    with ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(share, range(THREADS)):
            yield from found


def _verify(file: IO[bytes], room: Mapping[_Part, memoryview | None]) -> None:
    for part, checksum in _checksums(file, room):
        if checksum != part.checksum:
            raise DamagedError(part.name)


class _OtherOrderError(Exception):
    """Torch comes upon the tensors of an archive in another order than that of their numbers."""


def load(file: IO[bytes]) -> Any:
    """What `torch.load` reads onto the CPU from an archive, every byte of it verified.

    Torch makes room for the tensors and several threads read them, each block with its checksum
    while it is in the processor's cache: faster than `torch.load`, which verifies nothing.

    Args:
        file: open for reading.

    Raises:
        DamagedError: something is not what was written, whatever torch makes of it.
    """
    parts = list(_parts(file))
    orders = (_content(file, part) for part in parts if part.name.endswith("/byteorder"))
    if all(order == sys.byteorder.encode() for order in orders):
        try:
            return _load_in_order(file, parts)
        except _OtherOrderError:
            pass
    _verify(file, dict.fromkeys(parts))
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


def _content(file: IO[bytes], part: _Part) -> bytes:
    return os.pread(file.fileno(), part.size, part.start)


def _load_in_order(file: IO[bytes], parts: list[_Part]) -> Any:
    """Reads the tensors of an archive into the room that torch makes for one after the other.

    Raises:
        _OtherOrderError: that room is not of their sizes.
    """
    tensors = {int(p.name.split("/")[-1]): p for p in parts if _TENSOR.fullmatch(p.name) and p.size}
    # Torch numbers the storages in the order in which it comes upon them, here and when it saved.
    unread = iter([tensors[number] for number in sorted(tensors)])
    room: dict[_Part, memoryview | None] = dict.fromkeys(parts)

    def make_room(storage: Any, _: str) -> Any:
        if size := storage.nbytes():
            part = next(unread, None)
            if part is None or part.size != size:
                raise _OtherOrderError
            room[part] = torch.empty(0, dtype=torch.uint8).set_(storage).numpy().data
        return storage

    file.seek(0)
    try:
        with skip_data():
            return torch.load(file, map_location=make_room, weights_only=True)
    finally:
        _verify(file, room)
