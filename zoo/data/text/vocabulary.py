"""What a vocabulary is: it turns a text into numbers and back, and is stored as plain JSON.

| kind | a token is | takes any text | learned from the texts |
|---|---|---|---|
| characters | a character | refused by name, or `<unk>` | which characters there are |
| bytes | a byte of the text in UTF-8 | yes | nothing |
| words | a word, a number or punctuation | `<unk>` | the frequent words |
| bpe | a frequent sequence of bytes | yes | which ones |

Special tokens, if asked for, are always 0 `<pad>`, 1 `<unk>`, 2 `<s>` (begin), 3 `</s>`
(end) and 4 `<mask>`. Encoding never produces them and decoding omits them.
"""

import hashlib
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from zoo.data.sequences.special import MASK, SPECIAL
from zoo.data.text.strings import cut

VocabularyKind = Literal["characters", "bytes", "words", "bpe"]


class Vocabulary(ABC):
    """Numbers for the tokens of a text.

    Args:
        special: the names of the special tokens, which have the first numbers.

    Attributes:
        kind: the word for it in configurations and files.
        special: the names of the special tokens.
        pad: number of the token that fills rows of unequal length, or None.
        unknown: number of the token for what has no token of its own, or None.
        begin: number of the token before a text, or None.
        end: number of the token after a text, or None.
        mask: number of the token that hides another, or None.
    """

    kind: ClassVar[VocabularyKind]

    def __init__(self, special: Sequence[str] = ()) -> None:
        allowed = ((), SPECIAL[1:2], SPECIAL, (*SPECIAL, MASK))
        if tuple(special) not in allowed:
            raise ValueError(f"special must be one of {allowed}, not {special!r}")
        self.special = tuple(special)
        numbers = {name: number for number, name in enumerate(self.special)}
        self.pad, self.unknown, self.begin, self.end, self.mask = map(numbers.get, (*SPECIAL, MASK))

    @abstractmethod
    def __len__(self) -> int:
        """How many tokens there are, special ones included."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without special ones.

        Raises:
            ValueError: the text has characters that this vocabulary cannot encode.
        """

    def encode_tensor(self, text: str) -> Tensor:
        """The tokens of a text, int64 ``(time,)``: the fast way for a long one."""
        pieces = self.encode_batch(list(cut([text])))
        return torch.tensor(list(itertools.chain.from_iterable(pieces)), dtype=torch.int64)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text."""
        return [self.encode(text) for text in texts]

    def decode(self, tokens: Tensor | Iterable[int]) -> str:
        """The text of tokens; bytes that are not UTF-8 become ``U+FFFD``."""
        numbers = tokens.tolist() if isinstance(tokens, Tensor) else tokens
        return "".join(self.decode_stream(numbers))

    @abstractmethod
    def decode_stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """The text of tokens as they arrive: whole characters only, each as soon as it is complete.

        Joined, the parts are what :meth:`decode` gives for all the tokens.
        """

    @abstractmethod
    def tokens(self) -> list[str]:
        """A name for each token that can be printed on one line: ``␣`` for a space."""

    @abstractmethod
    def characters(self) -> list[int] | None:
        """How many characters begin in each token; None if decoding does not restore the text."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Everything as plain Python, see :func:`zoo.data.text.vocabularies.load_vocabulary`."""

    @classmethod
    @abstractmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        """The vocabulary of this kind that :meth:`to_json` stored."""

    def checksum(self) -> str:
        """SHA-256 of the stored form: equal for vocabularies that do the same."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def _checked(self, tokens: Iterable[int]) -> Iterator[int]:
        """The numbers that are not special tokens."""
        size, first = len(self), len(self.special)
        for number in tokens:
            if not 0 <= number < size:
                raise ValueError(f"tokens must be from 0 to {size - 1}, not {number}")
            if number >= first:
                yield number
