"""Words and their contexts from a text, for word embeddings (skip-gram and CBOW).

Mikolov et al. 2013, https://arxiv.org/abs/1301.3781 and https://arxiv.org/abs/1310.4546. The text
is its frequent words in their order: rare words and punctuation are removed before anything else.
From there, as in word2vec.c,
- each occurrence of a word is dropped with probability 1 - sqrt(t / f), f being the word's share of
  the text (subsampling), which also widens the windows;
- each remaining word has a window whose size is drawn from 1 to `window`, so near words count for
  more;
- negatives are drawn in proportion to the count of a word to the power of 3/4.

Differences from word2vec.c: the probability of dropping is the paper's; skip-gram predicts the
context from the word, as in the paper; a word that is drawn as its own negative remains one, as in
the paper's objective; and windows do not end with a line or a sentence.
"""

import hashlib
from typing import Any, Literal

import torch

from zoo.data.download import DataError
from zoo.data.module import Part, check_batch_size
from zoo.data.text.base import TextModule
from zoo.data.text.decisions import Output
from zoo.data.text.skip_gram_loader import Architecture, SkipGramLoader
from zoo.data.text.text import Text
from zoo.data.text.token_files import Chunks
from zoo.data.text.vocabularies import learn_vocabulary
from zoo.data.text.words import WordVocabulary


class WordWindows(TextModule):
    """Windows over the words of a text.

    The vocabulary is learned from the training text; other words are omitted, in the other splits
    too. Those have the same draws (dropped words, windows, negatives) each time.

    Args:
        text: source of the words and the splits; its own options for batches have no effect.
        kind: ``skip_gram`` (predict the context from the word) or ``cbow`` (the word from its
            context).
        output: ``negative_sampling`` or ``hierarchical_softmax``.
        batch_size: center words in a batch; skip-gram has about ``window + 1`` rows for each.
        window: most context words on either side.
        num_negatives: negatives drawn for each true word.
        subsample: t of the subsampling, a share of the text; 0 keeps every word.
        min_frequency: rarer words are omitted.
        vocab_size: maximum number of words, the most frequent ones; null for all.
        lower_case: ignore the difference between upper and lower case.
        sha256: checksum of the text and its splits; ``auto``: accept it as it is. It is part of
            the run, which then refuses to continue with another text.
    """

    changeable = ("text.root", "text.cache")

    def __init__(
        self,
        text: Text,
        *,
        kind: Architecture = "skip_gram",
        output: Output = "negative_sampling",
        batch_size: int = 512,
        window: int = 5,
        num_negatives: int = 5,
        subsample: float = 1e-3,
        min_frequency: int = 5,
        vocab_size: int | None = None,
        lower_case: bool = True,
        sha256: Literal["auto"] | str = "auto",
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        for name, value in (("window", window), ("num_negatives", num_negatives)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if not 0 <= subsample < 1:
            raise ValueError(f"subsample must be a share of the text in [0, 1), not {subsample}")
        if min_frequency < 1:
            raise ValueError(f"min_frequency must be at least 1, not {min_frequency}")
        if vocab_size is not None and vocab_size < 3:
            raise ValueError(f"vocab_size must be at least 3 or null, not {vocab_size}")
        self._text = text
        self.kind, self.output = kind, output
        self.batch_size = batch_size
        self.window = window
        self.num_negatives = num_negatives
        self.subsample = subsample
        self.min_frequency = min_frequency
        self.vocab_size = vocab_size
        self.lower_case = lower_case
        self.sha256 = "" if sha256 == "auto" else sha256

    @property
    def splits(self) -> tuple[str, ...]:
        return self._text.splits

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        parts = self._text.parts()
        self._check(parts)
        if "vocabulary" not in self.vocabularies:
            self.vocabularies["vocabulary"] = self._learned(parts["train"])
        vocabulary = self.vocabularies["vocabulary"]
        words = {}
        for split, chunks in parts.items():
            # Files may hold a smaller type.
            tokens = self._text.tokens(split, chunks, vocabulary).long()
            words[split] = tokens[tokens != vocabulary.unknown]
        counts = torch.bincount(words["train"], minlength=len(vocabulary))
        for split, tokens in words.items():
            self.loaders[split] = SkipGramLoader(
                tokens,
                counts,
                kind=self.kind,
                output=self.output,
                batch_size=self.batch_size,
                window=self.window,
                num_negatives=self.num_negatives,
                subsample=self.subsample,
                shuffle=split == "train",
                seed=seed,
                device=device,
                part=part,
            )

    def _check(self, parts: dict[str, Chunks]) -> None:
        """Refuses a text that is not the one of this run."""
        checksum = hashlib.sha256()
        for split, chunks in parts.items():
            checksum.update(f"{split}:".encode())
            for piece in chunks():
                checksum.update(piece.encode("utf-8", "surrogatepass"))
        found = checksum.hexdigest()
        if self.sha256 not in ("", found):
            raise DataError(
                f"the text is not the one of this run (sha256 {found}, not {self.sha256}): "
                "restore that text, or start another run"
            )
        self.sha256 = found

    def _learned(self, train: Chunks) -> WordVocabulary:
        frequent = learn_vocabulary(
            "words", train(), min_frequency=self.min_frequency, lower_case=self.lower_case
        )
        words = [name for name in frequent.tokens()[1:] if any(map(str.isalnum, name))]
        if len(words) < 2:
            raise ValueError(
                f"min_frequency must leave two words or more of the text, not {len(words)}: "
                f"{self.min_frequency} is too high"
            )
        most = None if self.vocab_size is None else self.vocab_size - 1  # the first is <unk>
        return WordVocabulary(words[:most], lower_case=self.lower_case)

    def facts(self) -> dict[str, Any]:
        if not self.vocabularies:
            raise RuntimeError("WordWindows needs setup() before its facts are known")
        words = len(self.vocabularies["vocabulary"])
        rows = words if self.output == "negative_sampling" else words - 1
        return {"vocab_size": words, "out_features": rows}

    def resolved(self) -> dict[str, Any]:
        return {"sha256": self.sha256} if self.sha256 else {}
