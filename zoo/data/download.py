"""Downloads that are whole or absent, and errors that say what to do."""

import contextlib
import hashlib
import http.client
import socket
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Literal

from zoo.data.files import made_folder, whole_file

CHUNK = 1 << 20
TIMEOUT = 60.0  # seconds of silence after which a server that torchvision asks counts as gone
Algorithm = Literal["sha256", "md5"]


class DataError(RuntimeError):
    """Data are missing or unusable: one sentence says what, where it was looked for, what to do."""


def file_digest(path: Path, algorithm: Algorithm = "sha256") -> str:
    """The checksum of a file, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def verify(path: Path, *, sha256: str | None = None, md5: str | None = None) -> None:
    """Compares a file that is already there with its checksum.

    Raises:
        DataError: if it is another file.
    """
    for algorithm, expected in _checksums(sha256, md5):
        found = file_digest(path, algorithm)
        if found != expected:
            raise DataError(
                f"{path} is damaged or another file: its {algorithm} is {found}, not {expected}; "
                f"delete it, so that it is downloaded again, or put the right file there"
            )


def download(
    url: str,
    path: str | Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    timeout: float = 30.0,
) -> Path:
    """Makes sure that ``path`` holds the file at ``url``; does not load what is already there.

    The file comes to a temporary name in the same folder, is compared with its checksum, synced
    to disk and only then renamed: a reader sees all of it or nothing.

    Args:
        url: ``http``, ``https`` or ``file``.
        path: where the file belongs; its folder is made.
        sha256: checksum that the file must have, whether downloaded or already there.
        md5: the same, where a source gives only this one.
        timeout: longest silence of the server, in seconds.

    Raises:
        DataError: if the file cannot be had, or is not the right one.
    """
    path = Path(path)
    if path.is_file():
        verify(path, sha256=sha256, md5=md5)
        return path
    checksums = _checksums(sha256, md5)
    by_hand = f"put the file at {path} by hand"
    if checksums:
        by_hand += f" ({checksums[0][0]} {checksums[0][1]})"
    try:
        with made_folder(path.parent), whole_file(path) as part:
            digests = _fetch(url, part, timeout)
            for algorithm, expected in checksums:
                if digests[algorithm] != expected:
                    raise DataError(
                        f"{url} gave a file with the wrong checksum ({algorithm} "
                        f"{digests[algorithm]}, not {expected}), which was thrown away: try "
                        f"again, or {by_hand}"
                    )
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"could not download {url} ({_reason(error)}): {by_hand}") from error
    return path


def _fetch(url: str, part: Path, timeout: float) -> dict[str, str]:
    """Copies a URL to a file and returns both checksums."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    request = urllib.request.Request(url, headers={"User-Agent": "python-urllib"})
    with urllib.request.urlopen(request, timeout=timeout) as response, open(part, "wb") as file:
        expected = response.headers.get("Content-Length")
        received = 0
        while chunk := response.read(CHUNK):
            received += len(chunk)
            sha256.update(chunk)
            md5.update(chunk)
            file.write(chunk)
        # A connection that ends early looks like the end of the file to `read`.
        if expected is not None and received != int(expected):
            raise ConnectionError(f"the server sent {received:,} of {int(expected):,} bytes")
    return {"sha256": sha256.hexdigest(), "md5": md5.hexdigest()}


def _checksums(sha256: str | None, md5: str | None) -> list[tuple[Algorithm, str]]:
    pairs: list[tuple[Algorithm, str | None]] = [("sha256", sha256), ("md5", md5)]
    return [(algorithm, expected) for algorithm, expected in pairs if expected is not None]


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error) or type(error).__name__


def import_torchvision() -> ModuleType:
    """Imports torchvision, which takes seconds and fails with a torch of another build.

    Raises:
        DataError: instead of the puzzling errors of a missing or mismatched torchvision.
    """
    try:
        import torchvision
    except (ImportError, RuntimeError) as error:
        raise DataError(
            f"torchvision cannot be imported ({error}): install the build that belongs to your "
            f"torch, both from the same index (https://pytorch.org/get-started/locally)"
        ) from error
    return torchvision


@contextlib.contextmanager
def torchvision_download(
    missing: str, *, folder: str | Path, source: str, advice: str
) -> Iterator[None]:
    """Says in one sentence what went wrong while a data set of torchvision downloads itself.

    Args:
        missing: what is not there, and where it was looked for.
        folder: where torchvision puts what it downloads; it goes again if nothing got there.
        source: where torchvision downloads it from.
        advice: what to do instead.

    Raises:
        DataError: the download failed, or gave something else.
    """
    import_torchvision()
    try:
        with _socket_timeout(TIMEOUT), made_folder(Path(folder)):
            yield
    except (
        OSError,
        RuntimeError,
        ValueError,
        EOFError,
        http.client.HTTPException,
        tarfile.TarError,
        zipfile.BadZipFile,
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{missing} and could not be downloaded from {source} ({reason}): {advice}"
        ) from error


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Limits the wait for a silent server, for which torchvision would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
