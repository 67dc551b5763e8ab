"""Batches of words and their contexts, for skip-gram and CBOW."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from zoo.data.sampling import seeded_generator
from zoo.data.text.huffman import huffman_tree
from zoo.data.text.word_sampling import (
    NoiseDistribution,
    contexts,
    keep_probabilities,
    kept_places,
)

Architecture = Literal["skip_gram", "cbow"]
Output = Literal["negative_sampling", "hierarchical_softmax"]


class WordBatch(NamedTuple):
    """Binary decisions that predict words; each row belongs to one target word.

    Attributes:
        inputs: skip-gram: the center word, int64 ``(batch,)``; CBOW: its context, -1 where there
            are fewer words, int64 ``(batch, 2 * window)``.
        outputs: rows of the output matrix, int64 ``(batch, rows)``: the target word and the
            negatives, or the nodes on the path to the target word.
        signs: 1 for the target word (or a left turn), -1 for a negative (or a right turn), 0 for
            what is not counted; float32 ``(batch, rows)``.
        is_tree: whether the rows are nodes, so that a row's decisions make up a probability.
    """

    inputs: Tensor
    outputs: Tensor
    signs: Tensor
    is_tree: bool


class SkipGramLoader:
    """Batches of center words and their contexts; a sample is a center word.

    In training (``shuffle``), each epoch drops other occurrences, so the number of words varies. It
    has as many whole batches as the expected number of words fills: some words are left over, or
    some come a second time. In evaluation every word that is kept is
    visited once, in the order of the text.

    What is dropped, and in which order the rest is visited, is a function of (seed, epoch); the
    windows and the negatives of a batch are one of (seed, epoch, batch).

    Args:
        tokens: the words of the text, int64 ``(time,)``.
        counts: how often each word occurs in the training text, ``(words,)``.
        kind: see :class:`~zoo.data.text.skip_gram.WordWindows`, as for all that follows.
        output: the output layer.
        batch_size: center words in a batch.
        window: most context words on either side.
        num_negatives: negatives drawn for each target word.
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
        kind: Architecture = "skip_gram",
        output: Output = "negative_sampling",
        batch_size: int,
        window: int,
        num_negatives: int = 5,
        subsample: float = 0.0,
        shuffle: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if len(tokens) < 2:
            raise ValueError(f"text must have two frequent words in every split, not {len(tokens)}")
        self._tokens = tokens
        self._kind = kind
        self._batch_size = batch_size
        self._window = window
        self._num_negatives = num_negatives
        self._shuffle = shuffle
        self._seed: int | str = seed if shuffle else "evaluation"
        self._device = torch.device(device)
        self._keep = keep_probabilities(counts, subsample)[tokens]  # (time,)
        self._noise = NoiseDistribution(counts)
        self._tree = huffman_tree(counts) if output == "hierarchical_softmax" else None
        self._signs = torch.tensor([1.0] + [-1.0] * num_negatives)
        self._draws: tuple[int, Tensor, Tensor] | None = None
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
        """The center words, by their places among the frequent words of the split."""
        places, order = self._epoch(epoch)
        found: list[int] = places[self._chunk(order, batch)].tolist()
        return found

    def batches(self, epoch: int, start: int = 0) -> Iterator[WordBatch]:
        epoch = epoch if self._shuffle else 0
        places, order = self._epoch(epoch)
        words = self._tokens[places]
        for number in range(start, len(self)):
            generator = seeded_generator("windows", self._seed, epoch, number)
            inputs, targets = self._pairs(words, self._chunk(order, number), generator)
            outputs, signs = self._decisions(targets, generator)
            yield WordBatch(
                inputs.to(self._device, non_blocking=True),
                outputs.to(self._device, non_blocking=True),
                signs.to(self._device, non_blocking=True),
                self._tree is not None,
            )

    def _epoch(self, epoch: int) -> tuple[Tensor, Tensor]:
        """The places in the text that are kept, and the order in which they are visited."""
        epoch = epoch if self._shuffle else 0
        if self._draws is None or self._draws[0] != epoch:
            generator = seeded_generator("words", self._seed, epoch)
            places = kept_places(self._keep, generator)
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

    def _pairs(
        self, words: Tensor, centers: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Inputs and target words; skip-gram has a row for each word of the context."""
        context, is_reached = contexts(words, centers, self._window, generator)
        center = words[centers]  # (centers,)
        if self._kind == "cbow":
            return context.where(is_reached, -1), center
        return center.repeat_interleave(is_reached.sum(1)), context[is_reached]  # (batch,) each

    def _decisions(self, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows of the output matrix and their signs, ``(batch, rows)`` each."""
        if self._tree is not None:
            return self._tree.nodes[targets], self._tree.signs[targets]
        negatives = self._noise.draw(len(targets), self._num_negatives, generator=generator)
        outputs = torch.cat([targets.unsqueeze(1), negatives], 1)  # (batch, 1 + num_negatives)
        return outputs, self._signs.expand(len(targets), -1)
