"""Tokens of large texts in files: made once, chunk by chunk, and read only as batches need them.

A text is an entry of two files in a folder: `<name>.bin`, the tokens as uint16 or uint32, and
`<name>.json`, which says what they were made from. The name holds a checksum of that, so a changed
source or another vocabulary makes a new entry, and the old one can be deleted. A file appears under
its name when it is complete, and several processes that need the same entry make it once.
"""

import contextlib
import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock
from torch import Tensor

from zoo.data.download import DataError
from zoo.data.files import whole_file
from zoo.data.text.strings import cut
from zoo.data.text.vocabularies import load_vocabulary
from zoo.data.text.vocabulary import Vocabulary

Chunks = Callable[[], Iterable[str]]
"""Gives a text in parts of any length, as often as it is called."""

T = TypeVar("T")
CHUNK = 1 << 20  # characters that are tokenised before their tokens are written


class TokenFiles:
    """A folder of tokenised texts and of the vocabularies that were learned from texts.

    Args:
        folder: created if missing; its contents may be deleted at any time between runs.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def tokens(
        self, name: str, source: dict[str, Any], vocabulary: Vocabulary, chunks: Chunks
    ) -> Tensor:
        """The tokens of a text, in a file that is mapped into memory and never modified.

        Args:
            name: prefix of the files' names.
            source: what the text depends on, as plain Python: files, sizes, times.
            vocabulary: makes the tokens.
            chunks: the text, read only if there is no file of its tokens yet.

        Returns:
            uint16 or uint32 ``(time,)``.

        Raises:
            DataError: the files cannot be written.
        """
        dtype = torch.uint16 if len(vocabulary) <= 1 << 16 else torch.uint32
        header = {
            "source": source,
            "vocabulary": vocabulary.checksum(),
            "dtype": str(dtype).removeprefix("torch."),
            "byteorder": sys.byteorder,
        }
        path = self._path(name, header)

        def count() -> int | None:
            found = _read(path.with_suffix(".json"))
            if not isinstance(found, dict) or {**found, "count": None} != {**header, "count": None}:
                return None
            size = path.stat().st_size if path.is_file() else -1
            return found["count"] if size == found["count"] * dtype.itemsize else None

        def make() -> None:
            with whole_file(path) as part, open(part, "wb") as file:
                for piece in cut(chunks(), CHUNK):
                    file.write(vocabulary.encode_tensor(piece).to(dtype).numpy().data)
                size = file.tell()
            # Last, so that there is no header without the tokens.
            _write(path.with_suffix(".json"), header | {"count": size // dtype.itemsize})

        number = self._made(path, count, make)
        if number == 0:
            return torch.empty(0, dtype=dtype)  # an empty file cannot be mapped
        # Not shared: the file is opened read-only.
        return torch.from_file(str(path), shared=False, size=number, dtype=dtype)

    def vocabulary(self, source: dict[str, Any], learn: Callable[[], Vocabulary]) -> Vocabulary:
        """The vocabulary that was learned from a source, learned only if there is none yet.

        Args:
            source: what it depends on, as plain Python.
            learn: makes it.

        Raises:
            DataError: the file cannot be written.
        """
        path = self._path("vocabulary", source).with_suffix(".json")

        def stored() -> Vocabulary | None:
            found = _read(path)
            if not isinstance(found, dict) or found.get("source") != source:
                return None
            with contextlib.suppress(ValueError, KeyError):
                return load_vocabulary(found["vocabulary"])
            return None

        def make() -> None:
            _write(path, {"source": source, "vocabulary": learn().to_json()})

        return self._made(path, stored, make)

    def _path(self, name: str, header: dict[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{name}-{digest[:16]}.bin"

    def _made(self, path: Path, stored: Callable[[], T | None], make: Callable[[], None]) -> T:
        """What is stored; if nothing is, one process makes it first."""
        if (found := stored()) is not None:
            return found
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_name(f".{path.name}.lock")):
                if (found := stored()) is None:  # another process may have been faster
                    make()
                    found = stored()
        except OSError as error:
            raise DataError(
                f"{path} cannot be written ({error.strerror or error}): free some space there, or "
                f"name another folder"
            ) from error
        if found is None:
            raise DataError(f"{path} was changed while it was read: do not write to {self.folder}")
        return found


def _read(path: Path) -> Any:
    """The content of a JSON file; None if there is none that can be read."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _write(path: Path, content: dict[str, Any]) -> None:
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=1), "utf-8")
