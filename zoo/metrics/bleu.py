"""BLEU of translations, by sacrebleu.

Papineni, Roukos, Ward and Zhu 2002, "BLEU: a method for automatic evaluation of machine
translation", https://aclanthology.org/P02-1040; Post 2018, "A call for clarity in reporting BLEU
scores", https://arxiv.org/abs/1804.08771.
"""

import re
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, Self

# Like the tokenizers on whose tokens figures for lower-case Multi30k are usually computed: `'s` is
# a token, hyphens and every other sign are tokens of their own.
WORD = re.compile(r"(?<=\w)['’]\w+|\w+|[^\w\s]")


class Bleu:
    """BLEU in two ways, of a whole evaluation, from 0 to 100.

    ``bleu`` is what papers should report: sacrebleu's own tokenisation (13a) of the text as a
    reader gets it against the reference as it was written, capitals included. ``bleu_tokenized``
    is what many recipes report: words and signs, lower-case, on both sides. It is the higher one
    wherever the translation has no capitals.
    """

    higher_is_better = MappingProxyType({"bleu": True, "bleu_tokenized": True})

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.translations: list[str] = []
        self.references: list[str] = []

    def update(self, translations: Sequence[str], references: Sequence[str]) -> None:
        if len(translations) != len(references):
            raise ValueError(
                f"references must be one for each of the {len(translations)} translations, not "
                f"{len(references)}"
            )
        self.translations += translations
        self.references += references

    def merge(self, other: "Bleu") -> None:
        """Adds what another one has seen."""
        self.update(other.translations, other.references)

    def compute(self) -> dict[str, float]:
        if not self.translations:
            return {"bleu": float("nan"), "bleu_tokenized": float("nan")}
        from sacrebleu.metrics import BLEU

        cased = BLEU().corpus_score(self.translations, [self.references])
        # force: there is no need to warn of text that is tokenised already.
        words = BLEU(tokenize="none", force=True).corpus_score(
            [tokenized(text) for text in self.translations],
            [[tokenized(text) for text in self.references]],
        )
        return {"bleu": cased.score, "bleu_tokenized": words.score}

    def to(self, device: Any) -> Self:
        return self


def tokenized(text: str) -> str:
    """Words and signs in lower case with spaces between them."""
    return " ".join(WORD.findall(text.lower()))
