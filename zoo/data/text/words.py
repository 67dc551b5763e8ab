"""Words, numbers and punctuation as tokens, and how they become a readable text again.

The tokens of a text are, from left to right, the first that matches of
- what follows an apostrophe within a word: `'s`, `'t`
- a number with its points and commas: `3,000.50`
- letters, digits and underscores, with hyphens inside: `T-shirt`, `3rd`
- any other character except space, with its immediate repetitions: `.`, `...`, `--`

Detokenisation puts a space between two tokens, except
- before `.` `,` `;` `:` `!` `?` `)` `]` `}` `%` `…` `”` `’` `»` and what begins with these
- before an apostrophe with letters (`'s`)
- after `(` `[` `{` `$` `€` `£` `#` `¿` `¡` `„` `‚` `«` `‘`
- on both sides of `/`
- inside straight quotes (`"`, and `'` on its own), of which every second one closes
- inside `“`, which closes after `„` and opens otherwise

Spaces and line breaks are not kept, so this is not the text itself.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

from zoo.data.text.strings import cut, printable
from zoo.data.text.vocabulary import Vocabulary

TOKEN = re.compile(
    r"""
    (?<=\w) ['’] \w+
  | \d+ (?: [.,:] \d+ )* (?! \w )
  | \w+ (?: - \w+ )*
  | ( [^\w\s] ) \1*
    """,
    re.VERBOSE,
)
NO_SPACE_BEFORE = frozenset(".,;:!?)]}%…”’»/")
NO_SPACE_AFTER = frozenset("([{$€£#¿¡„‚«‘/")


class WordVocabulary(Vocabulary):
    """A token for each word of a list, and ``<unk>`` for all others.

    Args:
        words: all of them, in the order of their numbers.
        special: names of special tokens; ``<unk>`` is always there.
        lower_case: lower-case texts before anything else.
    """

    kind = "words"

    def __init__(
        self, words: Sequence[str], special: Sequence[str] = (), *, lower_case: bool = False
    ) -> None:
        super().__init__(special or ("<unk>",))
        self.lower_case = lower_case
        self._words = tuple(words)
        self._numbers = {word: number for number, word in enumerate(words, len(self.special))}
        if len(self._numbers) != len(self._words):
            raise ValueError("words must differ from one another")

    def __len__(self) -> int:
        return len(self.special) + len(self._words)

    def encode(self, text: str) -> list[int]:
        assert self.unknown is not None
        numbers, unknown = self._numbers, self.unknown
        return [numbers.get(word, unknown) for word in split(text, lower_case=self.lower_case)]

    def decode_stream(self, tokens: Iterable[int]) -> Iterator[str]:
        return join(self._words[number - len(self.special)] for number in self._checked(tokens))

    def tokens(self) -> list[str]:
        return [*self.special, *map(printable, self._words)]

    def characters(self) -> None:
        return None

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "special": list(self.special),
            "lower_case": self.lower_case,
            "words": list(self._words),
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        return cls(stored["words"], stored["special"], lower_case=stored["lower_case"])


def learn_words(
    texts: Iterable[str],
    *,
    special: Sequence[str] = (),
    vocab_size: int | None = None,
    min_frequency: int = 1,
    lower_case: bool = False,
) -> WordVocabulary:
    """The frequent words of texts, the most frequent first, equally frequent ones by their letters.

    Args:
        texts: read once.
        special: names of special tokens.
        vocab_size: most tokens, special ones included; None for all.
        min_frequency: rarer words have no token.
        lower_case: ignore the difference between upper and lower case.
    """
    special = special or ("<unk>",)
    counts: Counter[str] = Counter()
    for text in texts:
        for piece in cut([text]):
            counts.update(split(piece, lower_case=lower_case))
    frequent = [word for word, count in counts.items() if count >= min_frequency]
    frequent.sort(key=lambda word: (-counts[word], word))
    most = None if vocab_size is None else vocab_size - len(special)
    return WordVocabulary(frequent[:most], special, lower_case=lower_case)


def split(text: str, *, lower_case: bool = False) -> list[str]:
    """The words, numbers and punctuation of a text, with composed accents (NFC)."""
    text = unicodedata.normalize("NFC", text.lower() if lower_case else text)
    return [found.group() for found in TOKEN.finditer(text)]


def join(words: Iterable[str]) -> Iterator[str]:
    """The text of words, each with the space before it if there is one."""
    open_quotes: set[str] = set()
    is_glued = True  # nothing comes before the first word
    for word in words:
        first = word[0]
        is_quote = word in ('"', "'", "“", "''")
        closes = is_quote and ("„" if word == "“" else word) in open_quotes
        is_suffix = len(word) > 1 and first in "'’" and word[1] not in "'’"
        has_space = not (is_glued or first in NO_SPACE_BEFORE or is_suffix or closes)
        yield f" {word}" if has_space else word
        is_glued = first in NO_SPACE_AFTER
        if closes:
            open_quotes.discard("„" if word == "“" else word)
        elif is_quote:
            is_glued = True
            if word != "“":  # an English one is closed by another character
                open_quotes.add(word)
        elif word == "„":
            open_quotes.add(word)
