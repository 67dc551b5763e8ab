"""Words and those around them in a text, for word embeddings (skip-gram and CBOW).

Mikolov et al. 2013, https://arxiv.org/abs/1301.3781 and https://arxiv.org/abs/1310.4546. The text
is its frequent words in their order: rare words and punctuation are left out before anything else.
From there, as in word2vec.c,
- each occurrence of a word is dropped with probability 1 - sqrt(t / f), f being the word's share of
  the text (subsampling), which also widens the windows;
- each word left looks as far as a number drawn from 1 to `window`, so near words count for more;
- negatives are drawn in proportion to the count of a word to the power of 3/4.

Differences from word2vec.c: the probability of dropping is the paper's; skip-gram predicts the
context from the word, as in the paper; a word that is drawn as its own negative remains one, as in
the paper's objective; and windows do not end with a line or a sentence.
"""

import hashlib
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from zoo.data.download import DataError
from zoo.data.module import DataModule, check_batch_size
from zoo.data.sampling import seeded_generator
from zoo.data.text.huffman import huffman_tree
from zoo.data.text.text import Text
from zoo.data.text.token_files import Chunks
from zoo.data.text.vocabularies import learn_vocabulary
from zoo.data.text.words import WordVocabulary

Kind = Literal["skip_gram", "cbow"]
Output = Literal["negative_sampling", "hierarchical_softmax"]

NOISE_POWER = 0.75


class WordBatch(NamedTuple):
    """Decisions to be taken from words; each row belongs to one word that is to be told.

    Attributes:
        inputs: skip-gram: the word in the middle, int64 ``(batch,)``; CBOW: the words around it, -1
            where there are fewer, int64 ``(batch, 2 * window)``.
        outputs: rows of the output matrix, int64 ``(batch, rows)``: the true word and the
            negatives, or the nodes on the way to the true word.
        signs: 1 for the true word (or a turn to the left), -1 for a negative (or to the right), 0
            for what is not counted; float32 ``(batch, rows)``.
        is_tree: whether the rows are nodes, so that a row's decisions make up a probability.
    """

    inputs: Tensor
    outputs: Tensor
    signs: Tensor
    is_tree: bool


class WordWindows(DataModule):
    """Windows over the words of a text.

    The vocabulary is learned from the training text; other words are left out, of the other splits
    as well. These have the same draws (dropped words, windows, negatives) each time.

    Args:
        text: where the words and the splits come from; how it makes batches itself has no effect.
        kind: what is given and what is to be told: ``skip_gram`` or ``cbow``.
        output: how it is told: ``negative_sampling`` or ``hierarchical_softmax``.
        batch_size: words in the middle a batch; skip-gram has about ``window + 1`` rows for each.
        window: how many words to either side at most.
        num_negatives: drawn words for each true one.
        subsample: t of the subsampling, a share of the text; 0 keeps every word.
        min_frequency: rarer words are left out.
        vocab_size: most words, the most frequent ones; null for all.
        lower_case: make no difference between upper and lower case.
        sha256: checksum of the text and its splits; ``auto``: take it as it is. It is part of the
            run, which then refuses to go on with another text.
    """

    def __init__(
        self,
        text: Text,
        *,
        kind: Kind = "skip_gram",
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

    def setup(self, *, seed: int = 0, device: torch.device | str = "cpu") -> None:
        parts = self._text.parts()
        self._check(parts)
        if "vocabulary" not in self.vocabularies:
            self.vocabularies["vocabulary"] = self._learned(parts["train"])
        vocabulary = self.vocabularies["vocabulary"]
        tokens = {split: self._text.tokens(split, c, vocabulary) for split, c in parts.items()}
        tokens = {s: part.long() for s, part in tokens.items()}  # files may hold a smaller type
        tokens = {s: part[part != vocabulary.unknown] for s, part in tokens.items()}
        counts = torch.bincount(tokens["train"], minlength=len(vocabulary))
        for split, part in tokens.items():
            self.loaders[split] = WindowLoader(
                part,
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
                f"the text is not the one of this run (sha256 {found}, not {self.sha256}): put "
                "that text back, or begin another run"
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

    def sizes(self) -> dict[str, int]:
        if not self.vocabularies:
            raise RuntimeError("WordWindows needs setup() before its sizes are known")
        words = len(self.vocabularies["vocabulary"])
        rows = words if self.output == "negative_sampling" else words - 1
        return {"vocab_size": words, "out_features": rows}

    def resolved(self) -> dict[str, Any]:
        return {"sha256": self.sha256} if self.sha256 else {}


class WindowLoader:
    """Batches of words and those around them; a sample is a word in the middle of a window.

    In training (``shuffle``), an epoch drops other occurrences each time, so that it has now more,
    now fewer words than the last. It has as many batches as go into the expected number: some words
    are left over, or the first ones come a second time. In evaluation every word that is left is
    visited once, in the order of the text.

    What is dropped, and in which order the rest is visited, is a function of (seed, epoch); the
    windows and the negatives of a batch are one of (seed, epoch, batch).

    Args:
        tokens: the words of the text, int64 ``(time,)``.
        counts: how often each word occurs in the training text, ``(words,)``.
        kind: see :class:`WordWindows`, as all that follows.
        output: how a word is told.
        batch_size: words in the middle a batch.
        window: how many words to either side at most.
        num_negatives: drawn words for each true one.
        subsample: t of the subsampling, 0 for none.
        shuffle: whether epochs differ.
        seed: of the draws; evaluation does without it.
        device: where the batches are put. They are made on the CPU, since how many rows they have
            is known only there.

    Raises:
        ValueError: the text is too short.
    """

    def __init__(
        self,
        tokens: Tensor,
        counts: Tensor,
        *,
        kind: Kind = "skip_gram",
        output: Output = "negative_sampling",
        batch_size: int,
        window: int,
        num_negatives: int = 5,
        subsample: float = 0.0,
        shuffle: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self._tokens = tokens
        self._kind = kind
        self._batch_size = batch_size
        self._window = window
        self._num_negatives = num_negatives
        self._shuffle = shuffle
        self._seed: int | str = seed if shuffle else "evaluation"
        self._device = torch.device(device)
        share = counts / counts.sum()
        keep = (subsample / share).sqrt().clamp(max=1) if subsample else torch.ones_like(share)
        self._keep = keep[tokens]  # (time,)
        noise = counts.double() ** NOISE_POWER
        self._noise = (noise / noise.sum()).cumsum(0)  # (words,)
        self._tree = huffman_tree(counts) if output == "hierarchical_softmax" else None
        self._signs = torch.tensor([1.0] + [-1.0] * num_negatives)
        self._draws: tuple[int, Tensor, Tensor] | None = None
        if len(tokens) < 2:
            raise ValueError(f"text must have two frequent words in every split, not {len(tokens)}")
        if shuffle:
            expected = int(self._keep.double().sum())
            if expected < batch_size:
                raise ValueError(
                    f"batch_size must be at most {expected}, the words that are left of the text "
                    f"after subsampling, not {batch_size}"
                )
            self._batches = expected // batch_size
            self.num_samples = self._batches * batch_size
        else:
            self.num_samples = len(self._epoch(0)[0])
            self._batches = -(-self.num_samples // batch_size)

    def __len__(self) -> int:
        """Batches an epoch."""
        return self._batches

    def indices(self, epoch: int, batch: int) -> list[int]:
        """Which frequent words of the split, counted from its beginning, are in the middle."""
        places, order = self._epoch(epoch)
        found: list[int] = places[self._chunk(order, batch)].tolist()
        return found

    def batches(self, epoch: int, start: int = 0) -> Iterator[WordBatch]:
        epoch = epoch if self._shuffle else 0
        places, order = self._epoch(epoch)
        words = self._tokens[places]
        for number in range(start, len(self)):
            generator = seeded_generator("windows", self._seed, epoch, number)
            inputs, told = self._windows(words, self._chunk(order, number), generator)
            outputs, signs = self._decisions(told, generator)
            yield WordBatch(
                inputs.to(self._device, non_blocking=True),
                outputs.to(self._device, non_blocking=True),
                signs.to(self._device, non_blocking=True),
                self._tree is not None,
            )

    def _epoch(self, epoch: int) -> tuple[Tensor, Tensor]:
        """The places in the text that are not dropped, and the order in which they are visited."""
        epoch = epoch if self._shuffle else 0
        if self._draws is None or self._draws[0] != epoch:
            generator = seeded_generator("words", self._seed, epoch)
            is_kept = torch.rand(len(self._tokens), generator=generator) < self._keep
            is_kept[:2] = True  # so that no word is ever without a context
            places = is_kept.nonzero().squeeze(1)
            count = len(places)
            order = (
                torch.randperm(count, generator=generator) if self._shuffle else torch.arange(count)
            )
            self._draws = (epoch, places, order)
        return self._draws[1:]

    def _chunk(self, order: Tensor, batch: int) -> Tensor:
        first = batch * self._batch_size
        if not self._shuffle:
            return order[first : first + self._batch_size]
        return order[torch.arange(first, first + self._batch_size) % len(order)]

    def _windows(
        self, words: Tensor, middle: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """What is given, and the word that is to be told: skip-gram ``(pairs,)`` each."""
        reach = torch.randint(1, self._window + 1, (len(middle), 1), generator=generator)
        offsets = torch.arange(-self._window, self._window + 1)
        offsets = offsets[offsets != 0]
        around = middle.unsqueeze(1) + offsets  # (centers, 2 * window)
        is_seen = (offsets.abs() <= reach) & (around >= 0) & (around < len(words))
        context = words[around.clamp(0, len(words) - 1)]  # (centers, 2 * window)
        center = words[middle]  # (centers,)
        if self._kind == "cbow":
            return context.where(is_seen, -1), center
        return center.repeat_interleave(is_seen.sum(1)), context[is_seen]

    def _decisions(self, told: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if self._tree is not None:
            return self._tree.nodes[told], self._tree.signs[told]
        uniform = torch.rand(
            len(told), self._num_negatives, generator=generator, dtype=torch.float64
        )
        # The word in whose part of [0, 1) a number falls; rounding may leave the last part open.
        negatives = torch.searchsorted(self._noise, uniform, right=True)
        negatives = negatives.clamp(max=len(self._noise) - 1)
        outputs = torch.cat([told.unsqueeze(1), negatives], 1)  # (batch, 1 + num_negatives)
        return outputs, self._signs.expand(len(told), -1)
