"""A vocabulary of any kind: learned from texts, or restored from its stored form."""

from collections.abc import Iterable
from typing import Any

from zoo.data.sequences.special import MASK, SPECIAL
from zoo.data.text.bpe import BPEVocabulary, learn_bpe
from zoo.data.text.characters import ByteVocabulary, CharacterVocabulary
from zoo.data.text.vocabulary import Vocabulary, VocabularyKind
from zoo.data.text.words import WordVocabulary, learn_words

KINDS: dict[str, type[Vocabulary]] = {
    kind.kind: kind for kind in (CharacterVocabulary, ByteVocabulary, WordVocabulary, BPEVocabulary)
}


def load_vocabulary(stored: Any) -> Vocabulary:
    """The vocabulary whose ``to_json()`` was ``stored``.

    Raises:
        ValueError: it is not a vocabulary's.
    """
    kind = str(stored.get("kind")) if isinstance(stored, dict) else str(stored)
    if kind not in KINDS:
        raise ValueError(f"kind of a vocabulary must be one of {', '.join(KINDS)}, not {kind!r}")
    try:
        return KINDS[kind].from_json(stored)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"kind {kind} of a vocabulary is damaged ({type(error).__name__}: {error})"
        ) from error


def learn_vocabulary(
    kind: VocabularyKind,
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
        kind: see :mod:`zoo.data.text.vocabulary`.
        texts: read once, one after the other.
        special: include ``<pad>``, ``<unk>``, ``<s>`` and ``</s>``.
        mask: include these and ``<mask>``.
        vocab_size: maximum number of tokens for words or bpe, special ones included; None for all
            words. For bpe it is needed, and at least 256 more than the special ones.
        min_frequency: words, or pairs of bpe, that occur less often have no token of their own.
        lower_case: ignore the difference between upper and lower case; only for words.

    Raises:
        ValueError: an argument does not apply to this kind or is out of range, or there is no text.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    if min_frequency < 1:
        raise ValueError(f"min_frequency must be at least 1, not {min_frequency}")
    if lower_case and kind != "words":
        raise ValueError(f"lower_case must be false with {kind}, which keeps the text as it is")
    check_vocab_size(kind, vocab_size, special=special, mask=mask)
    names = _names(special, mask)
    if kind == "bytes":
        return ByteVocabulary(names)
    if kind == "characters":
        return CharacterVocabulary("".join(sorted(set().union(*texts))), names)
    if kind == "words":
        return learn_words(
            texts,
            special=names,
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            lower_case=lower_case,
        )
    assert vocab_size is not None
    return learn_bpe(texts, vocab_size, special=names, min_frequency=min_frequency)


def check_vocab_size(
    kind: VocabularyKind, vocab_size: int | None, *, special: bool = False, mask: bool = False
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
