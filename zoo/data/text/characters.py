"""Vocabularies without learning: a token for each character, or for each byte."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from zoo.data.text.strings import beginnings, printable, printable_bytes, text_of_bytes, utf8
from zoo.data.text.vocabulary import Vocabulary


class CharacterVocabulary(Vocabulary):
    """A token for each character of a list.

    Args:
        characters: all of them, in the order of their numbers.
        special: names of special tokens. With them, a character that is not in the list becomes
            ``<unk>``; without, it is refused by name.
    """

    kind = "characters"

    def __init__(self, characters: str, special: Sequence[str] = ()) -> None:
        super().__init__(special)
        if not characters:
            raise ValueError("characters must not be empty")
        if len(set(characters)) != len(characters):
            raise ValueError(f"characters must differ from one another, not {characters!r}")
        self._characters = characters
        points = torch.tensor([ord(character) for character in characters])
        self._table = torch.full((int(points.max()) + 2,), -1)
        self._table[points] = torch.arange(len(characters)) + len(self.special)

    def __len__(self) -> int:
        return len(self.special) + len(self._characters)

    def encode(self, text: str) -> list[int]:
        return self.encode_tensor(text).tolist()

    def encode_tensor(self, text: str) -> Tensor:
        points = bytearray(text.encode("utf-32-le", "surrogatepass"))
        if not points:
            return torch.empty(0, dtype=torch.int64)
        codes = torch.frombuffer(points, dtype=torch.int32).clamp(max=len(self._table) - 1)
        tokens = self._table[codes.long()]
        if self.unknown is not None:
            return tokens.where(tokens >= 0, self.unknown)
        if (tokens < 0).any():
            strangers = sorted(set(text) - set(self._characters))
            names = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in strangers[:5])
            raise ValueError(
                f"text must consist of the {len(self._characters)} characters of the vocabulary, "
                f"not hold {names}"
            )
        return tokens

    def decode_stream(self, tokens: Iterable[int]) -> Iterator[str]:
        for number in self._checked(tokens):
            yield self._characters[number - len(self.special)]

    def tokens(self) -> list[str]:
        return [*self.special, *map(printable, self._characters)]

    def characters(self) -> list[int]:
        # An unknown character is one character too.
        return [int(name == "<unk>") for name in self.special] + [1] * len(self._characters)

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "special": list(self.special),
            "characters": list(self._characters),
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        return cls("".join(stored["characters"]), stored["special"])


class ByteVocabulary(Vocabulary):
    """The 256 bytes of UTF-8: any text, in any language, and nothing to learn.

    Args:
        special: names of special tokens.
    """

    kind = "bytes"

    def __len__(self) -> int:
        return len(self.special) + 256

    def encode(self, text: str) -> list[int]:
        return [byte + len(self.special) for byte in utf8(text)]

    def encode_tensor(self, text: str) -> Tensor:
        if not text:
            return torch.empty(0, dtype=torch.int64)
        return torch.frombuffer(bytearray(utf8(text)), dtype=torch.uint8).long() + len(self.special)

    def decode_stream(self, tokens: Iterable[int]) -> Iterator[str]:
        first = len(self.special)
        return text_of_bytes(bytes([number - first]) for number in self._checked(tokens))

    def tokens(self) -> list[str]:
        return [*self.special, *(printable_bytes(bytes([byte])) for byte in range(256))]

    def characters(self) -> list[int]:
        return [0] * len(self.special) + [beginnings(bytes([byte])) for byte in range(256)]

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "special": list(self.special)}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        return cls(stored["special"])
