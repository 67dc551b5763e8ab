"""Images that were decoded once: in memory, or in a file that later runs find.

Decoding and resizing take most of the time of reading image files. What they give, bytes of one
size, is kept as it is, so that batches are the same as without. Augmentation comes afterwards.

The file is `<data folder>/cache/<images>-<state>.npy`: `images` stands for the names of the files
and the sizes asked for, `state` for size and time of change of each file; when these are others,
the file is made anew. It is mapped into memory, not read, so that runs side by side share it. One
process makes it while others wait, and it comes to its name when it is whole. Each image has a
checksum: one that does not fit is decoded again, and the file removed, so that the next run makes
it anew. Whoever removes the folder loses nothing but time.
"""

import contextlib
import hashlib
import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from zoo.data.download import DataError
from zoo.data.files import whole_file
from zoo.data.loading.memory import available_memory

Cache = Literal["ram", "disk"]
AT_ONCE = 256  # images that are decoded before they are written
FORMAT = 1  # of the file


class Decoder(Protocol):
    """What makes an image of a file."""

    image_size: int
    in_channels: int
    resize: int | None
    reader: Any

    def decode(self, path: str) -> Tensor:
        """Reads a file as uint8 ``(height, width, channels)``."""
        ...


class Store(Protocol):
    """Decoded images by the paths of their files."""

    def find(self, path: str) -> Tensor | None:
        """The image of a file, uint8 ``(height, width, channels)``; None if it is to be decoded."""
        ...


class RamStore:
    """Decoded images in the memory of this computer; worker processes share it.

    Args:
        paths: of the files.
        decoder: reads them.
    """

    def __init__(self, paths: Sequence[str], decoder: Decoder) -> None:
        size = decoder.image_size
        shape = len(paths), size, size, decoder.in_channels
        needed, free = torch.Size(shape).numel(), available_memory(torch.device("cpu"))
        if needed > free:
            raise DataError(
                f"the decoded images need {needed / 2**30:,.1f} GiB and {free / 2**30:,.1f} are "
                "free: set data.cache=disk instead of ram"
            )
        self._images = torch.empty(shape, dtype=torch.uint8)
        self._rows = {path: row for row, path in enumerate(paths)}
        row = 0
        for images in _decoded(paths, decoder):
            for image in images:
                self._images[row] = image
                row += 1

    def find(self, path: str) -> Tensor | None:
        row = self._rows.get(path)
        return None if row is None else self._images[row]


class DiskStore:
    """Decoded images in a file, which is made if it is not there.

    Args:
        paths: of the image files.
        decoder: reads them.
        folder: where the file is or will be.

    Attributes:
        path: the file.
        note: what was done, for people.

    Raises:
        DataError: the file cannot be written.
    """

    def __init__(self, paths: Sequence[str], decoder: Decoder, folder: Path) -> None:
        from filelock import FileLock

        self._rows = {path: row for row, path in enumerate(paths)}
        self._shape = decoder.image_size, decoder.image_size, decoder.in_channels
        images, state = _keys(paths, decoder)
        self.path = folder / f"{images}-{state}.npy"
        self.note = f"cache: {len(paths):,} decoded images in {self.path}"
        self._array = self._mapped()
        if self._array is not None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f"{images}.lock"):
                self._array = self._mapped()
                if self._array is None:  # Nobody has made it meanwhile.
                    self.note += self._make(images, paths, decoder)
                    self._array = self._mapped()
        except OSError as error:
            raise DataError(
                f"{self.path} cannot be written ({error.strerror or error}): make room, choose "
                "another paths.data_dir, or set data.cache=null"
            ) from error

    def _make(self, images: str, paths: Sequence[str], decoder: Decoder) -> str:
        """Writes the file; returns why, if it was there before."""
        why = ", made anew: it was damaged" if self.path.exists() else ""
        for part in self.path.parent.glob(f".{images}-*.part"):  # of a process that was killed
            part.unlink()
        for old in self.path.parent.glob(f"{images}-*.npy"):
            if old != self.path:
                old.unlink()
                why = ", made anew: image files have changed"
        self._write(paths, decoder)
        return why

    def _type(self) -> Any:
        import numpy as np

        return np.dtype([("pixels", np.uint8, self._shape), ("checksum", "<u4")])

    def _mapped(self) -> Any:
        """The file as an array that is read on demand; None if it is not there or not whole."""
        import numpy as np

        try:
            array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        fits = array.dtype == self._type() and array.shape == (len(self._rows),)
        return array if fits else None

    def _write(self, paths: Sequence[str], decoder: Decoder) -> None:
        import numpy as np

        kind = self._type()
        header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False}
        # Written, not mapped: on a full disk a mapping ends the process.
        with whole_file(self.path) as part, open(part, "wb") as file:
            np.lib.format.write_array_header_2_0(file, header | {"shape": (len(paths),)})
            for images in _decoded(paths, decoder):
                records = np.empty(len(images), dtype=kind)
                for record, image in zip(records, images, strict=True):
                    record["pixels"] = image.numpy()
                    record["checksum"] = zlib.crc32(record["pixels"].tobytes())
                file.write(records.tobytes())

    def find(self, path: str) -> Tensor | None:
        row = self._rows.get(path)
        if row is None:
            return None
        record = self._array[row]
        pixels = record["pixels"].copy()
        if zlib.crc32(pixels.tobytes()) != record["checksum"]:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
            warnings.warn(
                f"{self.path} is damaged and has been removed; its images are read from their "
                "files, and the next run makes it anew",
                stacklevel=2,
            )
            return None
        return torch.from_numpy(pixels)

    def __getstate__(self) -> dict[str, Any]:
        # An array that is mapped would be copied as a whole.
        return self.__dict__ | {"_array": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._array = self._mapped()
        if self._array is None:
            self._rows = {}


def _keys(paths: Sequence[str], decoder: Decoder) -> tuple[str, str]:
    """Which images these are and how they are decoded; and what state their files are in."""
    from PIL import __version__ as pillow

    options = decoder.image_size, decoder.in_channels, decoder.resize, decoder.reader
    images = hashlib.sha256(str(options).encode())
    state = hashlib.sha256(f"{FORMAT} {pillow}".encode())
    for path in paths:
        found = os.stat(path)
        images.update(b"\0" + os.fsencode(os.path.abspath(path)))
        state.update(b"%d %d\n" % (found.st_size, found.st_mtime_ns))
    return images.hexdigest()[:16], state.hexdigest()[:16]


def _decoded(paths: Sequence[str], decoder: Decoder) -> Iterator[list[Tensor]]:
    """The images of files, in their order, some at a time."""
    # Decoding lets go of Python's lock.
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for first in range(0, len(paths), AT_ONCE):
            yield list(pool.map(decoder.decode, paths[first : first + AT_ONCE]))
