"""What a task needs of a vocabulary."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol


class Vocabulary(Protocol):
    """Text to tokens and back; made by the data and handed to the task by the run.

    Attributes:
        pad, unknown, begin, end, mask: numbers of the special tokens, None if it has none.
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
        """The text of tokens, special ones omitted."""
        ...

    def decode_stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """The text piece by piece, in whole characters."""
        ...

    def tokens(self) -> list[str]:
        """Every token as it should be displayed."""
        ...

    def characters(self) -> list[int] | None:
        """How many characters begin in each token; None if tokens do not spell the text."""
        ...
