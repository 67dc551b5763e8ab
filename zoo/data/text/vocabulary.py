"""Vocabularies: what turns a text into numbers and back, and can be stored as plain JSON.

| kind | a token is | any text | learned from the texts |
|---|---|---|---|
| characters | a character | refused by name, or `<unk>` | which characters there are |
| bytes | a byte of the text in UTF-8 | yes | nothing |
| words | a word, a number or punctuation | `<unk>` | the frequent words |
| bpe | a sequence of bytes that often stand together | yes | which ones |

Special tokens, where they are asked for, are always 0 `<pad>`, 1 `<unk>`, 2 `<s>` (begin), 3 `</s>`
(end) and 4 `<mask>`. Encoding never makes them and decoding leaves them out.
"""

import hashlib
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from torch import Tensor

from zoo.data.text.strings import beginnings, cut, printable, printable_bytes, text_of_bytes, utf8

Kind = Literal["characters", "bytes", "words", "bpe"]
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")
MASK = "<mask>"


class Vocabulary(ABC):
    """Numbers for the tokens of a text.

    Args:
        special: the names of the special tokens, which have the first numbers.

    Attributes:
        kind: the word for it in configurations and files.
        special: the names of the special tokens.
        pad: number of the token that fills rows of unequal length, None where there is none.
        unknown: number of the token for what has no token of its own, or None.
        begin: number of the token before a text, or None.
        end: number of the token after a text, or None.
        mask: number of the token that hides another, or None.
    """

    kind: ClassVar[Kind]

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
            ValueError: the text has characters that this vocabulary cannot take.
        """

    def encode_tensor(self, text: str) -> Tensor:
        """The tokens of a text, int64 ``(time,)``: the fast way for a long one."""
        pieces = self.encode_batch(list(cut([text])))
        return torch.tensor(list(itertools.chain.from_iterable(pieces)), dtype=torch.int64)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text."""
        return [self.encode(text) for text in texts]

    def decode(self, tokens: Tensor | Iterable[int]) -> str:
        """The text of tokens; bytes that are no UTF-8 become ``U+FFFD``."""
        numbers = tokens.tolist() if isinstance(tokens, Tensor) else tokens
        return "".join(self.decode_stream(numbers))

    @abstractmethod
    def decode_stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """The text of tokens as they come: never half a character, nothing held longer than needed.

        Joined, the parts are what :meth:`decode` gives for all the tokens.
        """

    @abstractmethod
    def tokens(self) -> list[str]:
        """A name for each token that can be printed on one line: ``␣`` for a blank."""

    @abstractmethod
    def characters(self) -> list[int] | None:
        """How many characters begin in each token; None where decoding does not give the text."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """All of it as plain Python, for :meth:`from_json`."""

    @staticmethod
    def from_json(stored: dict[str, Any]) -> "Vocabulary":
        """The vocabulary that :meth:`to_json` stored.

        Raises:
            ValueError: it is not one.
        """
        kind = str(stored.get("kind")) if isinstance(stored, dict) else str(stored)
        if kind not in get_args(Kind):
            raise ValueError(
                f"kind of a vocabulary must be one of {', '.join(get_args(Kind))}, not {kind!r}"
            )
        try:
            return _class(kind)._stored(stored)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"kind {kind} of a vocabulary is damaged ({type(error).__name__}: {error})"
            ) from error

    @classmethod
    @abstractmethod
    def _stored(cls, stored: dict[str, Any]) -> Self: ...

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
            raise ValueError("characters must be at least one, not ''")
        if len(set(characters)) != len(characters):
            raise ValueError(f"characters must not repeat one, not {characters!r}")
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
        # An unknown character is one character, too.
        return [int(name == "<unk>") for name in self.special] + [1] * len(self._characters)

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "special": list(self.special),
            "characters": list(self._characters),
        }

    @classmethod
    def _stored(cls, stored: dict[str, Any]) -> Self:
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
    def _stored(cls, stored: dict[str, Any]) -> Self:
        return cls(stored["special"])


def learn_vocabulary(
    kind: Kind,
    texts: Iterable[str],
    *,
    special: bool = False,
    mask: bool = False,
    vocab_size: int | None = None,
    min_frequency: int = 1,
    lower_case: bool = False,
) -> Vocabulary:
    """Makes a vocabulary from texts; the same texts always give the same one.

    Args:
        kind: see the top of this module.
        texts: read once, one after the other.
        special: have ``<pad>``, ``<unk>``, ``<s>`` and ``</s>``.
        mask: have these and ``<mask>``.
        vocab_size: the most tokens that words or bpe may have, special ones included; None for all
            words. For bpe it is needed, and at least 256 more than the special ones.
        min_frequency: words, or pairs of bpe, that occur less often have no token of their own.
        lower_case: words only: make no difference between upper and lower case.

    Raises:
        ValueError: an argument is not for this kind or out of range, or there is no text at all.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, not {kind!r}")
    if min_frequency < 1:
        raise ValueError(f"min_frequency must be at least 1, not {min_frequency}")
    if lower_case and kind != "words":
        raise ValueError(f"lower_case must be false with {kind}, which keep the text as it is")
    check_vocab_size(kind, vocab_size, special=special, mask=mask)
    names = _names(special, mask)
    if kind == "bytes":
        return ByteVocabulary(names)
    if kind == "characters":
        return CharacterVocabulary("".join(sorted(set().union(*texts))), names)
    if kind == "words":
        from zoo.data.text.words import learn_words

        return learn_words(
            texts,
            special=names,
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            lower_case=lower_case,
        )
    from zoo.data.text.bpe import learn_bpe

    assert vocab_size is not None
    return learn_bpe(texts, vocab_size, special=names, min_frequency=min_frequency)


def check_vocab_size(
    kind: Kind, vocab_size: int | None, *, special: bool = False, mask: bool = False
) -> None:
    """Refuses a number of tokens that a kind of vocabulary cannot have.

    Raises:
        ValueError: where :func:`learn_vocabulary` would, but before there are any texts.
    """
    if kind in ("characters", "bytes"):
        if vocab_size is not None:
            raise ValueError(f"vocab_size must be None with {kind}, not {vocab_size}")
        return
    if kind == "words":
        least = 1 + max(1, len(_names(special, mask)))
    else:
        least = 256 + len(_names(special, mask))
        if vocab_size is None:
            raise ValueError(f"vocab_size must be at least {least} for bpe, not None")
    if vocab_size is not None and vocab_size < least:
        what = "one word" if kind == "words" else "256 bytes"
        raise ValueError(
            f"vocab_size must be at least {least} for {kind}, {what} and the special tokens, "
            f"not {vocab_size}"
        )


def _names(special: bool, mask: bool) -> tuple[str, ...]:
    return (*SPECIAL, MASK) if mask else SPECIAL if special else ()


def _class(kind: str) -> type[Vocabulary]:
    if kind == "words":
        from zoo.data.text.words import WordVocabulary

        return WordVocabulary
    if kind == "bpe":
        from zoo.data.text.bpe import BPEVocabulary

        return BPEVocabulary
    return CharacterVocabulary if kind == "characters" else ByteVocabulary
