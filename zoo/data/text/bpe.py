"""Byte-pair encoding of bytes: frequent byte sequences are tokens, and any text can be encoded.

Sennrich, Haddow, Birch: Neural Machine Translation of Rare Words with Subword Units, 2016,
https://arxiv.org/abs/1508.07909: begin with single characters and make the most frequent pair of
neighbours a new token, repeatedly. Radford et al.: Language Models are Unsupervised Multitask
Learners (GPT-2), 2019, begin with the 256 bytes instead, so that nothing is unknown, and let no
token reach from letters into punctuation or digits, nor across a space except before a word.

Learned and applied by the `tokenizers` library, whose own file is the stored form's `tokenizer`.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

from zoo.data.text.strings import beginnings, cut, printable_bytes, text_of_bytes, utf8
from zoo.data.text.vocabulary import Vocabulary


class BPEVocabulary(Vocabulary):
    """A tokenizer of the `tokenizers` library; decoding gives exactly the text that was encoded.

    Args:
        tokenizer: byte-level BPE as the library stores it, with the special tokens first.
        special: their names.
    """

    kind = "bpe"

    def __init__(self, tokenizer: dict[str, Any], special: Sequence[str] = ()) -> None:
        from tokenizers import Tokenizer

        super().__init__(special)
        try:
            self._tokenizer = Tokenizer.from_str(json.dumps(tokenizer))
        except Exception as error:  # the library raises nothing more specific
            raise ValueError(f"tokenizer must be one of the tokenizers library: {error}") from error
        # A text that holds "<s>" holds these three characters, not a special token.
        self._tokenizer.encode_special_tokens = True
        size, first = self._tokenizer.get_vocab_size(), len(self.special)
        names = [self._tokenizer.id_to_token(number) or "" for number in range(size)]
        if tuple(names[:first]) != self.special:
            raise ValueError(f"tokenizer must begin with {self.special}, not {names[:first]}")
        table = {character: byte for byte, character in enumerate(byte_characters())}
        self._bytes = [b""] * first + [bytes(table[c] for c in name) for name in names[first:]]

    def __len__(self) -> int:
        return len(self._bytes)

    def encode(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        try:
            found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError:
            for text in texts:
                utf8(text)  # says what is wrong
            raise
        return [encoding.ids for encoding in found]

    def decode_stream(self, tokens: Iterable[int]) -> Iterator[str]:
        return text_of_bytes(self._bytes[number] for number in self._checked(tokens))

    def tokens(self) -> list[str]:
        first = len(self.special)
        return [*self.special, *map(printable_bytes, self._bytes[first:])]

    def characters(self) -> list[int]:
        return [beginnings(part) for part in self._bytes]

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "special": list(self.special),
            "tokenizer": json.loads(self._tokenizer.to_str()),
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        return cls(stored["tokenizer"], stored["special"])


def learn_bpe(
    texts: Iterable[str], vocab_size: int, *, special: Sequence[str] = (), min_frequency: int = 1
) -> BPEVocabulary:
    """Learns the merges of texts.

    Args:
        texts: read once.
        vocab_size: tokens, special ones and the 256 bytes included; fewer if the texts run out of
            pairs.
        special: names of special tokens.
        min_frequency: pairs that occur less often are not merged.
    """
    from tokenizers import Tokenizer
    from tokenizers.decoders import ByteLevel as Decoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = Decoder()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=list(special),
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    checked = (utf8(piece).decode() for text in texts for piece in cut([text]))
    tokenizer.train_from_iterator(checked, trainer)
    return BPEVocabulary(json.loads(tokenizer.to_str()), special)


def byte_characters() -> list[str]:
    """The character by which GPT-2's files write each byte: itself where it can be printed."""
    own = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in own else chr(next(others)) for byte in range(256)]
