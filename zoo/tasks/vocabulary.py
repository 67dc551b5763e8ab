"""What a task asks of a vocabulary."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol


class Vocabulary(Protocol):
    """Text to tokens and back; the data have made it and the run hands it on.

    Attributes:
        pad, unknown, begin, end, mask: numbers of the special tokens, None where there are none.
    """

    pad: int | None
    unknown: int | None
    begin: int | None
    end: int | None
    mask: int | None

    def __len__(self) -> int: ...

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, none of them special."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, the special ones left out."""
        ...

    def decode_stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """The text piece by piece, never a part of a character."""
        ...

    def tokens(self) -> list[str]:
        """Every token as it is to be shown."""
        ...

    def characters(self) -> list[int] | None:
        """How many characters begin in each token; None where tokens do not spell the text."""
        ...
