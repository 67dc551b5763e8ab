"""Texts as sequences of characters; the tokens of a character model are the characters."""

import hashlib
import platform
import sysconfig
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.data.download import DataError, download
from zoo.data.module import DataModule, check_batch_size
from zoo.data.tracks import TextBatch, TrackLoader

__all__ = ["CharacterText", "StandardLibrary", "TextBatch", "TinyShakespeare"]

TRAIN_FRACTION = 0.9

# Modules that every Python from 3.11 to 3.13 has as one file: about 1.4 million characters.
MODULES = """
argparse ast calendar codecs collections/__init__ configparser contextlib csv dataclasses difflib
enum fileinput fractions functools gettext heapq http/client json/decoder json/encoder
logging/__init__ os pprint queue random selectors shutil socket statistics string subprocess
tempfile textwrap threading traceback urllib/parse weakref
"""


class CharacterText(DataModule):
    """A text whose tokens are its characters: the first 90 % to train on, the last 10 % for val.

    The vocabulary is made of the characters of the whole text, as is the custom for character
    models, so that a character that only the last part has can be encoded too. Any other
    character, in a prompt for instance, is refused by name rather than replaced.

    Args:
        batch_size: tracks read in parallel.
        sequence_length: characters a step.
        vocabulary: the characters in the order of their numbers; ``auto``: the text's, sorted.
    """

    splits = ("train", "val")

    def __init__(
        self,
        *,
        batch_size: int = 12,
        sequence_length: int = 64,
        vocabulary: Literal["auto"] | str = "auto",
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        if sequence_length < 1:
            raise ValueError(f"sequence_length must be at least 1, not {sequence_length}")
        if vocabulary != "auto" and len(set(vocabulary)) != len(vocabulary):
            raise ValueError(f"vocabulary must not repeat a character, not {vocabulary!r}")
        self.batch_size = batch_size
        self.sequence_length = sequence_length
        self.vocabulary = "" if vocabulary == "auto" else vocabulary

    @abstractmethod
    def text(self) -> str:
        """Reads the whole text."""

    def setup(self, *, seed: int = 0, device: torch.device | str = "cpu") -> None:
        text = self.text()
        self.vocabulary = self.vocabulary or "".join(sorted(set(text)))
        tokens = self.encode(text)
        cut = int(TRAIN_FRACTION * len(tokens))
        for split, part in (("train", tokens[:cut]), ("val", tokens[cut:])):
            self.loaders[split] = TrackLoader(
                part,
                batch_size=self.batch_size,
                sequence_length=self.sequence_length,
                shuffle=split == "train",
                seed=seed,
                device=device,
            )

    def sizes(self) -> dict[str, int]:
        self._check_vocabulary()
        return {"vocab_size": len(self.vocabulary), "sequence_length": self.sequence_length}

    def resolved(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary} if self.vocabulary else {}

    def encode(self, text: str) -> Tensor:
        """Turns text into tokens, int64 ``(time,)``.

        Raises:
            ValueError: for a character that is not in the vocabulary.
        """
        self._check_vocabulary()
        table = torch.full((max(map(ord, self.vocabulary)) + 2,), -1)
        table[[ord(character) for character in self.vocabulary]] = torch.arange(
            len(self.vocabulary)
        )
        points = bytearray(text.encode("utf-32-le", "surrogatepass"))
        if not points:
            return torch.empty(0, dtype=torch.int64)
        codes = torch.frombuffer(points, dtype=torch.int32).long().clamp(max=len(table) - 1)
        tokens = table[codes]
        if (tokens < 0).any():
            strangers = sorted(set(text) - set(self.vocabulary))
            names = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in strangers[:5])
            raise ValueError(
                f"text must consist of the {len(self.vocabulary)} characters of the vocabulary, "
                f"not hold {names}"
            )
        return tokens

    def decode(self, tokens: Tensor | Sequence[int]) -> str:
        """Turns tokens back into text."""
        self._check_vocabulary()
        numbers = tokens.tolist() if isinstance(tokens, Tensor) else tokens
        return "".join(self.vocabulary[number] for number in numbers)

    def _check_vocabulary(self) -> None:
        if not self.vocabulary:
            raise RuntimeError(
                f"{type(self).__name__} needs setup(), or a vocabulary, before it can use one"
            )


class StandardLibrary(CharacterText):
    """The source of a fixed list of modules of Python's standard library: nothing to download.

    Another Python may have other text. Its checksum is part of the run, which then refuses to go
    on with any other.

    Args:
        batch_size: tracks read in parallel.
        sequence_length: characters a step.
        vocabulary: the characters in the order of their numbers; ``auto``: the text's, sorted.
        sha256: checksum of the text (UTF-8); ``auto``: take whatever this Python has.
    """

    def __init__(
        self,
        *,
        batch_size: int = 12,
        sequence_length: int = 64,
        vocabulary: Literal["auto"] | str = "auto",
        sha256: Literal["auto"] | str = "auto",
    ) -> None:
        super().__init__(
            batch_size=batch_size, sequence_length=sequence_length, vocabulary=vocabulary
        )
        self.sha256 = "" if sha256 == "auto" else sha256

    def text(self) -> str:
        folder = Path(sysconfig.get_path("stdlib"))
        try:
            text = "\n".join((folder / f"{name}.py").read_text("utf-8") for name in MODULES.split())
        except OSError as error:
            raise DataError(
                f"the source of Python's standard library is not complete in {folder} ({error}): "
                f"use a Python that was installed with it, or another text"
            ) from error
        found = hashlib.sha256(text.encode()).hexdigest()
        if self.sha256 and found != self.sha256:
            raise DataError(
                f"the standard library of Python {platform.python_version()} is not the text of "
                f"this run (sha256 {found}, not {self.sha256}): use the Python that began the run"
            )
        self.sha256 = found
        return text

    def resolved(self) -> dict[str, Any]:
        return super().resolved() | ({"sha256": self.sha256} if self.sha256 else {})


class TinyShakespeare(CharacterText):
    """1.1 million characters of Shakespeare's plays, from Karpathy's char-rnn (2015).

    https://github.com/karpathy/char-rnn. With the split of nanoGPT: 1,003,854 and 111,540
    characters, vocabulary 65. By convention there is no test split.

    Args:
        batch_size: tracks read in parallel.
        sequence_length: characters a step.
        root: folder of all downloads; the file is ``root/tinyshakespeare/input.txt``.
        vocabulary: the characters in the order of their numbers; ``auto``: the text's, sorted.
    """

    url = (
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
    )
    checksum = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"

    def __init__(
        self,
        *,
        batch_size: int = 12,
        sequence_length: int = 64,
        root: str = "data",
        vocabulary: Literal["auto"] | str = "auto",
    ) -> None:
        super().__init__(
            batch_size=batch_size, sequence_length=sequence_length, vocabulary=vocabulary
        )
        self.root = root

    def text(self) -> str:
        path = Path(self.root) / "tinyshakespeare" / "input.txt"
        return download(self.url, path, sha256=self.checksum).read_text("utf-8")
