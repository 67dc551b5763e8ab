"""Your own text files: one, or all in a folder, held in memory or tokenised once into a file.

The files of a split form one text, separated by line breaks. They are read as UTF-8, a byte order
mark is skipped, and every kind of line ending becomes a line break.
"""

import codecs
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

from torch import Tensor

from zoo.data.download import DataError
from zoo.data.files import locate
from zoo.data.folders import is_hidden
from zoo.data.splits import check_fractions
from zoo.data.text.text import Text, TextOptions
from zoo.data.text.token_files import Chunks, TokenFiles
from zoo.data.text.vocabulary import Vocabulary

READ = 1 << 20  # bytes that are read from a file at a time

Span = tuple[Path, int, int]  # bytes of a file, from one to before another


class TextFiles(Text):
    """A text file, or all files in a folder and its subfolders, in the order of their names.

    Without files of its own, ``val`` is the last part of the text, followed by ``test`` if there is
    one. The text is cut at shares of its bytes, moved forward to the next whole character that is
    not a line break. Files that are given for these splits are not trained on, even if they lie in
    the folder that is.

    Args:
        path: a file or a folder, from where you stand or within ``root``.
        root: folder of all data.
        pattern: names of the files to read from a folder.
        val_path: file or folder to evaluate on; ``None``: a part of ``path``.
        test_path: file or folder to test on; ``None``: a part of ``path``, if any.
        val_fraction: share of ``path`` for ``val``, if there is no ``val_path``.
        test_fraction: share of ``path`` for ``test``, if there is no ``test_path``; 0: no test.
        cache: folder for files of tokens, absolute or within ``root``, for texts that do not fit
            in memory: they are tokenised once, and batches are read from there. If the size or
            the time of a source file changes, they are made anew. ``None``: all is in memory.
        options: see :class:`~zoo.data.text.text.TextOptions`.
    """

    changeable = ("root", "cache")

    def __init__(
        self,
        path: str,
        *,
        root: str = "data",
        pattern: str = "*.txt",
        val_path: str | None = None,
        test_path: str | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.0,
        cache: str | None = None,
        **options: Unpack[TextOptions],
    ) -> None:
        super().__init__(**options)
        check_fractions(val_fraction, test_fraction)
        if not pattern or pattern.startswith("/"):
            raise ValueError(f"pattern must match file names, such as *.txt, not {pattern!r}")
        self.root = Path(root)
        self.paths = {"train": path, "val": val_path, "test": test_path}
        self.shares = {
            "val": val_fraction if val_path is None else 0.0,
            "test": test_fraction if test_path is None else 0.0,
        }
        self.pattern = pattern
        self.files = None if cache is None else TokenFiles(self.root / cache)
        self._spans: dict[str, list[Span]] = {}

    @property
    def splits(self) -> tuple[str, ...]:
        """Train, val and, if it has a path or a share, test."""
        has_test = self.paths["test"] is not None or self.shares["test"] > 0
        return ("train", "val", "test") if has_test else ("train", "val")

    def parts(self) -> dict[str, Chunks]:
        self.notes = []
        found = {
            split: [(file, 0, file.stat().st_size) for file in self._files(path)]
            for split, path in self.paths.items()
            if path is not None
        }
        held_out = {
            file.resolve() for split in ("val", "test") for file, _, _ in found.get(split, ())
        }
        found["train"] = [span for span in found["train"] if span[0].resolve() not in held_out]
        if not any(end > begin for _, begin, end in found["train"]):
            raise DataError(
                f"path={self.paths['train']}: all text is that of val_path and test_path, so "
                "none is left for training: name another file or folder"
                if held_out
                else f"path={self.paths['train']}: holds no text: name another file or folder"
            )
        shared = [split for split, share in self.shares.items() if share > 0]
        divided = divide(found["train"], [self.shares[split] for split in shared])
        found |= dict(zip(("train", *shared), divided, strict=True))
        self._spans = {split: found[split] for split in self.splits}
        return {split: Reader(spans) for split, spans in self._spans.items()}

    def learn(self, parts: dict[str, Chunks]) -> Vocabulary:
        if self.files is None:
            return super().learn(parts)
        source = {
            "kind": self.vocabulary,
            "vocab_size": self.vocab_size,
            "mask_token": self.mask_token,
            "text": {split: self._source(split) for split in parts},
        }
        return self.files.vocabulary(source, lambda: super(TextFiles, self).learn(parts))

    def tokens(self, split: str, chunks: Chunks, vocabulary: Vocabulary) -> Tensor:
        if self.files is None:
            return super().tokens(split, chunks, vocabulary)
        return self.files.tokens(split, {"text": self._source(split)}, vocabulary, chunks)

    def _source(self, split: str) -> list[dict[str, Any]]:
        """Which bytes of which files make up a split."""
        source = []
        for file, begin, end in self._spans[split]:
            stat = file.stat()
            path = str(file.resolve())
            size, time = stat.st_size, stat.st_mtime_ns
            source.append({"path": path, "size": size, "time": time, "begin": begin, "end": end})
        return source

    def _files(self, path: str) -> list[Path]:
        place = locate(path, self.root)
        if place.is_file():
            return [place]
        if not place.is_dir():
            raise DataError(
                f"path={path}: {place} is neither a file nor a folder: name one, from where you "
                f"stand or within the folder of all data"
            )
        matching = [file for file in place.rglob(self.pattern) if file.is_file()]
        files = sorted(
            file for file in matching if not any(map(is_hidden, file.relative_to(place).parts))
        )
        if skipped := len(matching) - len(files):
            self.notes.append(f"{path}: {len(files):,} files; not read: {skipped:,} hidden")
        if not files:
            raise DataError(
                f"pattern={self.pattern}: {place} holds no matching file: give another pattern or "
                f"folder"
            )
        return files


class Reader:
    """Gives the text of byte ranges of files, a part at a time; it can be called repeatedly.

    Args:
        spans: the range of each file.
    """

    def __init__(self, spans: Sequence[Span]) -> None:
        self.spans = spans

    def __call__(self) -> Iterator[str]:
        for number, (path, begin, end) in enumerate(self.spans):
            if number:
                yield "\n"
            yield from _read(path, begin, end)


def divide(spans: Sequence[Span], shares: Sequence[float]) -> list[list[Span]]:
    """Cuts a text into a first part and others that follow it.

    Args:
        spans: the text.
        shares: shares of all bytes, for each of the others.

    Returns:
        The parts, one more than there are shares.
    """
    total = sum(end - begin for _, begin, end in spans)
    cuts = [int(total * (1 - sum(shares[number:]))) for number in range(len(shares))]
    parts: list[list[Span]] = [[] for _ in range(len(shares) + 1)]
    passed = 0
    for path, begin, end in spans:
        inner = [begin + at - passed for at in cuts]
        places = [_character(path, min(max(at, begin), end), end) for at in inner]
        for part, low, high in zip(parts, [begin, *places], [*places, end], strict=True):
            if low < high:
                part.append((path, low, high))
        passed += end - begin
    return parts


def _character(path: Path, place: int, end: int) -> int:
    """The first place from this one on where a character begins that is not a line break."""
    with open(path, "rb") as file:
        file.seek(place)
        while 0 < place < end and ((byte := file.read(1)[0]) & 0xC0 == 0x80 or byte in b"\r\n"):
            place += 1
    return place


def _read(path: Path, begin: int, end: int) -> Iterator[str]:
    utf8 = codecs.getincrementaldecoder("utf-8")()
    decoder = io.IncrementalNewlineDecoder(utf8, translate=True)
    try:
        with open(path, "rb") as file:
            file.seek(begin)
            if begin == 0 and file.read(3) != codecs.BOM_UTF8:
                file.seek(0)
            while data := file.read(min(READ, end - file.tell())):
                yield decoder.decode(data)
            yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text ({_broken_line(path)}): convert it (iconv -t UTF-8), or "
            f"omit it"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from error


def _broken_line(path: Path) -> str:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f"line {number}, byte {error.start + 1}: {error.reason}"
    return "a character is cut off"
