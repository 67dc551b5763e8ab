"""Texts as sequences of tokens, for language models: what all have in common, and two of them.

The tokens are characters, bytes, words or what byte-pair encoding makes, see
`zoo.data.text.vocabulary`. `zoo.data.text.text_files` reads your own text files.
"""

import hashlib
import platform
import sysconfig
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, get_args

import torch
from torch import Tensor

from zoo.data.download import DataError, download
from zoo.data.loading.bptt import ContiguousLoader
from zoo.data.loading.windows import WindowLoader
from zoo.data.module import Loader, Part, check_batch_size
from zoo.data.text.base import TextModule
from zoo.data.text.strings import cut
from zoo.data.text.token_files import CHUNK, Chunks
from zoo.data.text.vocabularies import check_vocab_size, learn_vocabulary
from zoo.data.text.vocabulary import Vocabulary, VocabularyKind

Order = Literal["tracks", "windows"]
TRAIN_FRACTION = 0.9

# Modules that are one file in every Python from 3.11 to 3.13: about 1.4 million characters.
MODULES = """
argparse ast calendar codecs collections/__init__ configparser contextlib csv dataclasses difflib
enum fileinput fractions functools gettext heapq http/client json/decoder json/encoder
logging/__init__ os pprint queue random selectors shutil socket statistics string subprocess
tempfile textwrap threading traceback urllib/parse weakref
"""


class TextOptions(TypedDict, total=False):
    """Arguments of every text, which :class:`Text` describes."""

    batch_size: int
    sequence_length: int
    order: Order
    vocabulary: VocabularyKind
    vocab_size: int | None
    mask_token: bool
    drop_last: bool


class Text(TextModule):
    """A text to train on and others, or other parts of it, to evaluate on, as batches of tokens.

    The characters of a vocabulary are those of all splits, as is usual for character models, so
    that a character that only the validation text has can be encoded too. Words and bpe are
    learned from the training text alone.

    Args:
        batch_size: rows of a batch.
        sequence_length: tokens of each row.
        order: ``tracks``: each row continues the same row of the previous batch, for networks that
            carry a state; ``windows``: rows are windows in random order.
        vocabulary: ``characters``, ``bytes``, ``words`` or ``bpe``.
        vocab_size: maximum number of tokens of words (None: a token for every word) or of bpe
            (required); None for the others, whose number is fixed by the text.
        mask_token: include special tokens, ``<mask>`` among them, as masked language modelling
            needs.
        drop_last: omit the last batch of windows of a training epoch if it is smaller; batches of
            tracks are all of one size.
    """

    def __init__(
        self,
        *,
        batch_size: int = 12,
        sequence_length: int = 64,
        order: Order = "tracks",
        vocabulary: VocabularyKind = "characters",
        vocab_size: int | None = None,
        mask_token: bool = False,
        drop_last: bool = False,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        if sequence_length < 1:
            raise ValueError(f"sequence_length must be at least 1, not {sequence_length}")
        if order not in get_args(Order):
            raise ValueError(f"order must be one of {', '.join(get_args(Order))}, not {order!r}")
        if vocabulary not in get_args(VocabularyKind):
            known = ", ".join(get_args(VocabularyKind))
            raise ValueError(f"vocabulary must be one of {known}, not {vocabulary!r}")
        check_vocab_size(vocabulary, vocab_size, mask=mask_token)
        self.batch_size = batch_size
        self.sequence_length = sequence_length
        self.order = order
        self.drop_last = drop_last
        self.vocabulary = vocabulary
        self.vocab_size = vocab_size
        self.mask_token = mask_token

    @property
    def splits(self) -> tuple[str, ...]:
        return ("train", "val")

    @abstractmethod
    def parts(self) -> dict[str, Chunks]:
        """The text of each split, in parts of any length, as often as it is requested."""

    def text(self) -> str:
        """The text of all splits, one after the other."""
        return "".join(chunk for chunks in self.parts().values() for chunk in chunks())

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        parts = self.parts()
        vocabulary = self.vocabularies.get("vocabulary")
        if vocabulary is None:
            vocabulary = self.vocabularies["vocabulary"] = self.learn(parts)
        elif (vocabulary.kind, vocabulary.mask is not None) != (self.vocabulary, self.mask_token):
            has_mask = "with" if vocabulary.mask is not None else "without"
            raise ValueError(
                f"vocabulary must be {vocabulary.kind} {has_mask} mask_token, as the one given, "
                f"not {self.vocabulary} and mask_token {self.mask_token}"
            )
        for split, chunks in parts.items():
            tokens = self.tokens(split, chunks, vocabulary)
            if split != "train" and len(tokens) < 2:
                raise DataError(
                    f"the {split} text has {len(tokens)} tokens and 2 are needed: give it more "
                    f"({split}_fraction) or a file of its own ({split}_path)"
                )
            is_training = split == "train"
            make: Callable[..., Loader] = ContiguousLoader
            if self.order == "windows":
                make = partial(WindowLoader, drop_last=is_training and self.drop_last)
            self.loaders[split] = make(
                tokens,
                batch_size=self.batch_size,
                sequence_length=self.sequence_length,
                shuffle=is_training,
                seed=seed,
                device=device,
                part=part,
            )

    def learn(self, parts: dict[str, Chunks]) -> Vocabulary:
        """Makes the vocabulary from the text of the splits."""
        chosen = parts.values() if self.vocabulary == "characters" else [parts["train"]]
        return learn_vocabulary(
            self.vocabulary,
            (piece for chunks in chosen for piece in cut(chunks())),
            mask=self.mask_token,
            vocab_size=self.vocab_size,
        )

    def tokens(self, split: str, chunks: Chunks, vocabulary: Vocabulary) -> Tensor:
        """The tokens of a split."""
        pieces = [vocabulary.encode_tensor(piece) for piece in cut(chunks(), CHUNK)]
        return torch.cat(pieces) if pieces else torch.empty(0, dtype=torch.int64)

    def facts(self) -> dict[str, Any]:
        vocabulary = self.vocabularies.get("vocabulary")
        if vocabulary is None:
            raise RuntimeError(
                f"{type(self).__name__} needs setup(), or a vocabulary, to know its facts"
            )
        return {"vocab_size": len(vocabulary), "sequence_length": self.sequence_length}


class WholeText(Text):
    """A text in one piece: the first 90 % of its characters for training, the rest for val."""

    @abstractmethod
    def text(self) -> str:
        """Reads it."""

    def parts(self) -> dict[str, Chunks]:
        text = self.text()
        cut_at = int(TRAIN_FRACTION * len(text))
        return {"train": lambda: [text[:cut_at]], "val": lambda: [text[cut_at:]]}


class StandardLibrary(WholeText):
    """The source of a fixed list of modules of Python's standard library: nothing to download.

    Another Python may have a different text. Its checksum is part of the run, which then refuses
    to continue with any other.

    Args:
        sha256: checksum of the text (UTF-8); ``auto``: accept whatever this Python has.
        options: see :class:`TextOptions`.
    """

    def __init__(
        self, *, sha256: Literal["auto"] | str = "auto", **options: Unpack[TextOptions]
    ) -> None:
        super().__init__(**options)
        self.sha256 = "" if sha256 == "auto" else sha256

    def text(self) -> str:
        folder = Path(sysconfig.get_path("stdlib"))
        try:
            text = "\n".join((folder / f"{name}.py").read_text("utf-8") for name in MODULES.split())
        except OSError as error:
            raise DataError(
                f"the source of Python's standard library is incomplete in {folder} ({error}): "
                f"use a Python that includes it, or another text"
            ) from error
        found = hashlib.sha256(text.encode()).hexdigest()
        if self.sha256 and found != self.sha256:
            raise DataError(
                f"the standard library of Python {platform.python_version()} is not the text of "
                f"this run (sha256 {found}, not {self.sha256}): use the Python that started the run"
            )
        self.sha256 = found
        return text

    def resolved(self) -> dict[str, Any]:
        return {"sha256": self.sha256} if self.sha256 else {}


class TinyShakespeare(WholeText):
    """1.1 million characters of Shakespeare's plays, from Karpathy's char-rnn (2015).

    https://github.com/karpathy/char-rnn. With the split of nanoGPT: 1,003,854 and 111,540
    characters, 65 of them different. By convention there is no test split.

    Args:
        root: folder of all downloads; the file is ``root/tinyshakespeare/input.txt``.
        options: see :class:`TextOptions`.
    """

    changeable = ("root",)
    url = (
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
    )
    checksum = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"

    def __init__(self, *, root: str = "data", **options: Unpack[TextOptions]) -> None:
        super().__init__(**options)
        self.root = root

    def text(self) -> str:
        path = Path(self.root) / "tinyshakespeare" / "input.txt"
        return download(self.url, path, sha256=self.checksum).read_text("utf-8")
