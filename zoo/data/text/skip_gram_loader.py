"""Batches of words and their contexts, for skip-gram and CBOW."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from zoo.data.loading.order import BatchOrder, share
from zoo.data.module import Part
from zoo.data.sampling import seeded_generator
from zoo.data.text.decisions import Decisions, Output, WordBatch
from zoo.data.text.word_sampling import contexts, keep_probabilities, kept_places

Architecture = Literal["skip_gram", "cbow"]


class SkipGramLoader:
    """Batches of center words and their contexts; a sample is a center word.

    In training (``shuffle``), each epoch drops other occurrences, so the number of words varies. It
    has as many whole batches as the expected number of words fills: a piece of the text, another
    one each time, is left over or comes twice. In evaluation every word that is kept is visited
    once, in the order of the text.

    What is dropped and in which order the rest is visited is a function of (seed, epoch); the
    windows and the negatives of a batch are one of (seed, epoch, batch), whatever the parts.

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
        part: ``(rank, world)``: give the rows of these center words, ``None`` if there are none.

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
        part: Part = (0, 1),
    ) -> None:
        if len(tokens) < 2:
            raise ValueError(f"text must have two frequent words in every split, not {len(tokens)}")
        self._tokens = tokens
        self._kind = kind
        self._window = window
        self._shuffle = shuffle
        self._seed: int | str = seed if shuffle else "evaluation"
        self._device = torch.device(device)
        self._keep = keep_probabilities(counts, subsample)[tokens]  # (time,)
        self._decisions = Decisions(counts, output, num_negatives)
        self._draws: tuple[int, Tensor, int] | None = None
        if shuffle:
            expected = int(self._keep.double().sum())
            if expected < batch_size:
                raise ValueError(
                    f"batch_size must be at most {expected}, the words that are left of the text "
                    f"after subsampling, not {batch_size}"
                )
            self.num_samples = expected // batch_size * batch_size
        else:
            self.num_samples = len(self._epoch(0)[0])
        self._order = BatchOrder(
            self.num_samples, batch_size, shuffle=shuffle, seed=seed, part=part
        )

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._order)

    def indices(self, epoch: int, batch: int) -> list[int]:
        """The center words, by their places among the frequent words of the split."""
        places, first = self._epoch(epoch)
        samples = self._order.batches(epoch, batch)[0]
        found: list[int] = places[(samples + first) % len(places)].tolist()
        return found

    def batches(self, epoch: int, start: int = 0) -> Iterator[WordBatch | None]:
        epoch = epoch if self._shuffle else 0
        places, first = self._epoch(epoch)
        words = self._tokens[places]
        for number, samples in enumerate(self._order.batches(epoch, start), start):
            generator = seeded_generator("windows", self._seed, epoch, number)
            yield self._batch(words, (samples + first) % len(places), generator)

    def _epoch(self, epoch: int) -> tuple[Tensor, int]:
        """The places in the text that are kept, and at which of them the numbering begins."""
        epoch = epoch if self._shuffle else 0
        if self._draws is None or self._draws[0] != epoch:
            generator = seeded_generator("words", self._seed, epoch)
            places = kept_places(self._keep, generator)
            first = int(torch.randint(len(places), (1,), generator=generator))
            self._draws = (epoch, places, first if self._shuffle else 0)
        return self._draws[1:]

    def _batch(
        self, words: Tensor, centers: Tensor, generator: torch.Generator
    ) -> WordBatch | None:
        """This part's rows of a batch; everything is drawn for the whole batch, then sliced."""
        own = share(len(centers), self._order.part)
        if own.start == own.stop:
            return None
        context, is_reached = contexts(words, centers, self._window, generator)
        if self._kind == "cbow":
            inputs, targets = context.where(is_reached, -1), words[centers]
        else:  # a row for each word of the context
            sizes = is_reached.sum(1)  # (centers,)
            inputs, targets = words[centers].repeat_interleave(sizes), context[is_reached]
            own = slice(int(sizes[: own.start].sum()), int(sizes[: own.stop].sum()))
        outputs, signs = self._decisions.draw(targets, generator)
        return WordBatch(
            inputs[own].to(self._device, non_blocking=True),
            outputs[own].to(self._device, non_blocking=True),
            signs[own].to(self._device, non_blocking=True),
            self._decisions.is_tree,
        )
