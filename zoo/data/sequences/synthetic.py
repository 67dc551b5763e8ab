"""Synthetic sequences whose answer is known, each a question about a network's memory.

| data set | asks for | answered by |
|---|---|---|
| `AddingProblem` | two numbers kept over a long time | LSTM, GRU, a TCN; not a plain RNN |
| `Parity` | one bit, changed at every step | recurrent networks, for any length once learned |
| `TokenPairs`: copy, reverse, sort | all of the input, in some order | encoder-decoders |

The samples of a split are drawn once, from `data_seed`; no sequence is in two splits.
"""

from collections.abc import Iterator
from typing import Any, Literal, Unpack

import torch
from torch import Tensor

from zoo.data.loading.drawn import DrawnOptions, DrawnSamples
from zoo.data.loading.tensor import TensorLoader
from zoo.data.module import Part
from zoo.data.sampling import seeded_generator
from zoo.data.sequences.batches import sequence_loader
from zoo.data.sequences.pairs import pair_loader
from zoo.data.sequences.special import SPECIAL
from zoo.data.splits import SPLITS


class AddingProblem(DrawnSamples):
    r"""Two of many numbers are marked: add them up (Hochreiter and Schmidhuber, 1997, section 5.4).

    https://doi.org/10.1162/neco.1997.9.8.1735, in the form of Le, Jaitly and Hinton 2015,
    https://arxiv.org/abs/1504.00941, and Arjovsky, Shah and Bengio 2016,
    https://arxiv.org/abs/1511.06464:

    .. math:: x_t = (v_t, m_t), \quad v_t \sim U(0, 1), \quad m_t \in \{0, 1\}, \qquad
        y = \sum_t m_t v_t

    with one mark in the first half of the sequence and one in the second. Always predicting 1 gives
    the mean squared error 1/6 = 0.167, the variance of the sum; to do better, a number must be
    kept for half the sequence on average.

    A batch is ``(inputs, targets)``, float32 ``(batch, length, 2)`` and ``(batch, 1)``.

    Args:
        batch_size: sequences a batch.
        length: steps of each sequence.
        num_samples: sequences to train on.
        options: see :class:`~zoo.data.loading.drawn.DrawnSamples`.
    """

    def __init__(
        self,
        *,
        batch_size: int = 32,
        length: int = 200,
        num_samples: int = 50_000,
        **options: Unpack[DrawnOptions],
    ) -> None:
        super().__init__(batch_size=batch_size, num_samples=num_samples, **options)
        if length < 2:
            raise ValueError(f"length must be at least 2, one step for each mark, not {length}")
        self.length = length

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        for split, count in self.counts.items():
            self.loaders[split] = TensorLoader(
                self._draw(count, seeded_generator("adding problem", split, self.data_seed)),
                batch_size=self.batch_size,
                shuffle=split == "train",
                seed=seed,
                drop_last=self.drop_last and split == "train",
                device=device,
                part=part,
            )

    def _draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        half = self.length // 2
        values = torch.rand(count, self.length, generator=generator)
        first = torch.randint(half, (count, 1), generator=generator)
        second = torch.randint(half, self.length, (count, 1), generator=generator)
        marks = torch.zeros_like(values).scatter_(1, torch.cat([first, second], dim=1), 1.0)
        sums = (values * marks).sum(1, keepdim=True)  # (count, 1)
        return torch.stack([values, marks], dim=2), sums  # (count, length, 2)

    def facts(self) -> dict[str, Any]:
        return {"in_features": 2, "out_features": 1}


class Parity(DrawnSamples):
    """Whether the number of ones in a sequence of bits is odd, said at its end or at every step.

    One bit of memory is enough, but it must be right after every step, and guessing from anything
    less than the whole sequence is no better than chance. A network that has learned the rule, not
    the sequences, answers those of any length: see ``test_length``.

    A batch is a :class:`~zoo.data.sequences.batches.SequenceBatch` of the tokens 0 and 1.

    Args:
        batch_size: sequences a batch.
        min_length: bits of the shortest sequence.
        max_length: bits of the longest.
        test_length: bits of all test sequences, more than ``max_length``; null: as for the others.
        every_step: the target is the parity so far, of each step.
        num_samples: sequences to train on.
        options: see :class:`~zoo.data.loading.drawn.DrawnSamples`.
    """

    class_names = ("even", "odd")

    def __init__(
        self,
        *,
        batch_size: int = 64,
        min_length: int = 1,
        max_length: int = 20,
        test_length: int | None = None,
        every_step: bool = False,
        num_samples: int = 10_000,
        **options: Unpack[DrawnOptions],
    ) -> None:
        super().__init__(batch_size=batch_size, num_samples=num_samples, **options)
        check_lengths(min_length, max_length)
        if test_length is not None and test_length <= max_length:
            raise ValueError(
                f"test_length must be greater than max_length {max_length}, or null, not "
                f"{test_length}"
            )
        self.min_length = min_length
        self.max_length = max_length
        self.test_length = test_length
        self.every_step = every_step

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        counts = tuple(self.counts.values())
        lengths = (self.min_length, self.max_length)
        sequences = distinct_sequences(2, lengths, counts=counts, seed=self.data_seed)
        if self.test_length is not None:
            lengths = (self.test_length, self.test_length)
            sequences[2:] = distinct_sequences(2, lengths, counts=counts[2:], seed=self.data_seed)
        for split, bits in zip(SPLITS, sequences, strict=True):
            sums = [sequence.cumsum(0) % 2 for sequence in bits]  # each (time,)
            self.loaders[split] = sequence_loader(
                bits,
                sums if self.every_step else [int(parities[-1]) for parities in sums],
                batch_size=self.batch_size,
                shuffle=split == "train",
                seed=seed,
                drop_last=self.drop_last and split == "train",
                device=device,
                part=part,
            )

    def facts(self) -> dict[str, Any]:
        return {"num_classes": 2, "class_names": list(self.class_names), "vocab_size": 2}


class TokenPairs(DrawnSamples):
    """A sequence of symbols and the same symbols in another order: copied, reversed or sorted.

    A batch is a :class:`~zoo.data.sequences.pairs.PairBatch` whose symbols are the tokens from 4
    on, behind the special ones. There is no text, so there are no references.

    Args:
        order: of the target: ``copy``, ``reverse`` or ``sort`` (rising).
        batch_size: pairs a batch.
        min_length: symbols of the shortest sequence.
        max_length: symbols of the longest.
        num_symbols: different symbols.
        num_samples: pairs to train on.
        options: see :class:`~zoo.data.loading.drawn.DrawnSamples`.
    """

    def __init__(
        self,
        *,
        order: Literal["copy", "reverse", "sort"] = "copy",
        batch_size: int = 64,
        min_length: int = 1,
        max_length: int = 12,
        num_symbols: int = 10,
        num_samples: int = 10_000,
        **options: Unpack[DrawnOptions],
    ) -> None:
        super().__init__(batch_size=batch_size, num_samples=num_samples, **options)
        if order not in ("copy", "reverse", "sort"):
            raise ValueError(f"order must be copy, reverse or sort, not {order!r}")
        check_lengths(min_length, max_length)
        if num_symbols < 2:
            raise ValueError(f"num_symbols must be at least 2, not {num_symbols}")
        self.order = order
        self.min_length = min_length
        self.max_length = max_length
        self.num_symbols = num_symbols

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        sequences = distinct_sequences(
            self.num_symbols,
            (self.min_length, self.max_length),
            counts=tuple(self.counts.values()),
            seed=self.data_seed,
        )
        for split, symbols in zip(SPLITS, sequences, strict=True):
            sources = [(sequence + len(SPECIAL)).tolist() for sequence in symbols]
            self.loaders[split] = pair_loader(
                sources,
                [self._ordered(source) for source in sources],
                batch_size=self.batch_size,
                shuffle=split == "train",
                seed=seed,
                drop_last=self.drop_last and split == "train",
                device=device,
                part=part,
            )

    def _ordered(self, source: list[int]) -> list[int]:
        if self.order == "sort":
            return sorted(source)
        return source[::-1] if self.order == "reverse" else source

    def facts(self) -> dict[str, Any]:
        tokens = len(SPECIAL) + self.num_symbols
        return {"source_vocab_size": tokens, "target_vocab_size": tokens}


def distinct_sequences(
    num_symbols: int, lengths: tuple[int, int], *, counts: tuple[int, ...], seed: int
) -> list[list[Tensor]]:
    """Draws sequences of symbols, all different, and deals them out to parts of given sizes.

    Lengths are equally frequent as far as there are different sequences of each.

    Args:
        num_symbols: different symbols, from 0 on.
        lengths: of the shortest and of the longest sequence.
        counts: sequences of each part.
        seed: of the draw.

    Raises:
        ValueError: there are hardly as many different sequences as are wanted.
    """
    possible = sum(num_symbols**length for length in range(lengths[0], lengths[1] + 1))
    wanted = sum(counts)
    if wanted > possible // 2:
        raise ValueError(
            f"num_samples and the {len(counts) - 1} other splits must be at most {possible // 2} "
            f"sequences, half of those that differ, not {wanted}: raise max_length"
        )
    generator = seeded_generator("sequences", num_symbols, *lengths, seed)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < wanted:
        for sequence in _drawn(num_symbols, lengths, count=wanted, generator=generator):
            found[sequence] = None
            if len(found) == wanted:
                break
    sequences: Iterator[tuple[int, ...]] = iter(found)
    return [[torch.tensor(next(sequences)) for _ in range(count)] for count in counts]


def _drawn(
    num_symbols: int, lengths: tuple[int, int], *, count: int, generator: torch.Generator
) -> Iterator[tuple[int, ...]]:
    ends = torch.randint(lengths[0], lengths[1] + 1, (count,), generator=generator).tolist()
    rows = torch.randint(num_symbols, (count, lengths[1]), generator=generator).tolist()
    return (tuple(row[:end]) for row, end in zip(rows, ends, strict=True))


def check_lengths(min_length: int, max_length: int) -> None:
    """Refuses empty sequences and an empty range of lengths."""
    if min_length < 1:
        raise ValueError(f"min_length must be at least 1, not {min_length}")
    if max_length < min_length:
        raise ValueError(f"max_length must be at least min_length {min_length}, not {max_length}")
