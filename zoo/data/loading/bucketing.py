"""Batches of sequences of different lengths, put together so that little of them is padding.

Sequences of about the same length are batched together, either a fixed number of them or as many
as fit a budget of tokens: Vaswani et al. 2017, "Attention is all you need",
https://arxiv.org/abs/1706.03762, section 5.1, as in fairseq (Ott et al. 2019,
https://arxiv.org/abs/1904.01038).

The samples are sorted from long to short and cut into buckets, once and for all. The size of a
bucket's batches follows from its longest sequence, so an epoch that shuffles within the buckets has
neither more nor fewer batches than any other, and none above the budget.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.data.loading.order import BatchOrder
from zoo.data.module import Part, check_batch_size
from zoo.data.sampling import evaluation_order, seeded_generator

Collate = Callable[[list[Tensor], list[Tensor], list[int]], Any]

SPREAD = 0.1
"""Share of its longest sequence by which a bucket's sequences may be shorter, roughly."""
MOST_BATCHES = 64
"""Batches in a bucket; more would hardly mix the samples any better."""


class Ragged:
    """Sequences of different lengths end to end in one tensor, gathered to padded batches.

    Args:
        sequences: each ``(time, *)``.
        device: where the values are.
    """

    def __init__(self, sequences: Sequence[Tensor], *, device: torch.device | str = "cpu") -> None:
        self.lengths = torch.tensor([len(sequence) for sequence in sequences], dtype=torch.int64)
        self._values = torch.cat(list(sequences)).to(device)
        self._starts = (self.lengths.cumsum(0) - self.lengths).to(device)
        self._lengths = self.lengths.to(device)

    def padded(self, rows: Tensor, time: int) -> Tensor:
        """Sequences by number, zeros to their right: rows ``(batch,)`` to ``(batch, time, *)``."""
        places = torch.arange(time, device=rows.device)
        past = places >= self._lengths[rows].unsqueeze(1)  # (batch, time)
        index = (self._starts[rows].unsqueeze(1) + places).masked_fill(past, 0)
        values = self._values[index]  # (batch, time, *)
        return values.masked_fill(past.view(*past.shape, *(1,) * (values.ndim - 2)), 0)


class BucketOrder(BatchOrder):
    """Batches of samples of similar length, cut out of buckets that are sorted from long to short.

    Args:
        lengths: of each sample's sequences, int64 ``(columns, samples)``.
        batch_size: samples a batch, or
        tokens_per_batch: budget of a batch.
        shuffle: whether epochs differ.
        seed: together with the epoch, all that the order depends on.
        drop_last: omit the smaller batch of the last bucket, if there is one.
        part: ``(rank, world)``.
    """

    def __init__(
        self,
        lengths: Tensor,
        *,
        batch_size: int | None,
        tokens_per_batch: int | None,
        shuffle: bool,
        seed: int,
        drop_last: bool = False,
        part: Part = (0, 1),
    ) -> None:
        longest = lengths.amax(0)  # (samples,)
        self._total = lengths.sum(0)  # (samples,)
        # From long to short; samples of equal length stay in their order.
        self._sorted = (longest * (self._total.max() + 1) + self._total).argsort(
            descending=True, stable=True
        )
        self._bucket, self._sizes = _cut(
            longest[self._sorted], batch_size, tokens_per_batch, drop_last=drop_last
        )
        if not self._sizes:
            raise ValueError("drop_last must be false where the only batch is a smaller one")
        num_samples, size = lengths.shape[1], max(self._sizes)
        super().__init__(
            num_samples, size, shuffle=shuffle, seed=seed, drop_last=drop_last, part=part
        )
        self._plan: tuple[int, list[Tensor]] | None = None

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._sizes)

    def batches(
        self, epoch: int, start: int = 0, *, device: torch.device | str = "cpu"
    ) -> Sequence[Tensor]:
        epoch = epoch if self.shuffle else 0
        if self._plan is None or self._plan[0] != epoch:
            self._plan = (epoch, self._planned(epoch))
        plan = self._plan[1][start:]
        if not plan or torch.device(device).type == "cpu":
            return plan
        # All numbers of the epoch go to the device at once, so that no batch waits for its own.
        return torch.cat(plan).to(device).split([len(rows) for rows in plan])

    def _planned(self, epoch: int) -> list[Tensor]:
        order = self._sorted
        if self.shuffle:
            # Within a bucket, samples are sorted by roughly their total length: the shorter column
            # needs little padding too, and the noise lets others meet in every epoch.
            generator = seeded_generator("buckets", self.seed, epoch)
            noise = torch.rand(self.num_samples, generator=generator, dtype=torch.float64)
            total = self._total[order] * (1 - SPREAD * noise)
            scale = float(self._total.max()) + 1
            order = order[(self._bucket * scale - total).argsort(stable=True)]
            visits = torch.randperm(len(self), generator=generator)
        else:
            visits = evaluation_order(len(self))
        batches = order[: sum(self._sizes)].split(self._sizes)
        return [batches[number] for number in visits.tolist()]


class BucketLoader:
    """Batches of similar length from sequences, or tuples of sequences, in memory.

    A sample has one sequence in each column (source and target, say), and its length is that of
    the longest of them. The values live on the training device, where a batch is a few gathers;
    the lengths are on the CPU, where packing sequences wants them.

    Training visits every sample once an epoch. Which ones meet in a batch and in which order the
    batches come is a function of (seed, epoch), computed from the lengths alone, so starting at a
    late batch costs nothing extra. Evaluation has the same batches each time, long and short ones
    mixed, since the first of them alone may be all that is looked at.

    Args:
        columns: the sequences of each column, ``(time, *)`` each and none of them empty.
        collate: makes a batch of the padded columns ``(batch, time, *)``, their lengths
            ``(batch,)`` and the numbers of the samples.
        batch_size: samples a batch; only the last bucket may have a smaller one.
        tokens_per_batch: instead: the number of samples in a batch times its longest sequence,
            padding included, is at most this.
        shuffle: whether epochs differ. In evaluation a sample above the budget is a batch of its
            own, in training it is refused.
        seed: together with the epoch, all that the order depends on.
        drop_last: omit the smaller batch of the last bucket, if there is one. Not for evaluation.
        device: where the values are.
        part: ``(rank, world)``: give this slice of each batch, ``None`` where it is empty. It is
            padded to its own longest sequence.

    Raises:
        ValueError: a column is empty or of another length than the first, a sequence is empty, or
            not exactly one of the sizes is given or it is too small.
    """

    def __init__(
        self,
        columns: Sequence[Sequence[Tensor]],
        collate: Collate,
        *,
        batch_size: int | None = None,
        tokens_per_batch: int | None = None,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        device: torch.device | str = "cpu",
        part: Part = (0, 1),
    ) -> None:
        check_sizes(batch_size, tokens_per_batch)
        sizes = [len(column) for column in columns]
        if not sizes or sizes[0] == 0 or len(set(sizes)) > 1:
            raise ValueError(f"columns must have one length greater than 0, not {sizes}")
        self.num_samples = sizes[0]
        self._columns = [Ragged(column, device=device) for column in columns]
        self._collate = collate
        self._device = torch.device(device)
        lengths = torch.stack([column.lengths for column in self._columns])  # (columns, samples)
        if (lengths == 0).any():
            empty = int((lengths == 0).any(0).nonzero()[0])
            raise ValueError(f"columns must hold no empty sequence, as sample {empty} has")
        if shuffle and tokens_per_batch is not None and lengths.max() > tokens_per_batch:
            raise ValueError(
                f"tokens_per_batch must be at least {lengths.max()}, the longest sequence, not "
                f"{tokens_per_batch}"
            )
        self._order = BucketOrder(
            lengths,
            batch_size=batch_size,
            tokens_per_batch=tokens_per_batch,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            part=part,
        )

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._order)

    def indices(self, epoch: int, batch: int) -> list[int]:
        return self._order.indices(epoch, batch)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        plan = self._order.chunks(epoch, start)
        moved = self._order.chunks(epoch, start, device=self._device)
        for rows, there in zip(plan, moved, strict=True):
            if not len(rows):
                yield None
                continue
            lengths = [column.lengths[rows] for column in self._columns]
            padded = [
                column.padded(there, int(size.max()))
                for column, size in zip(self._columns, lengths, strict=True)
            ]
            yield self._collate(padded, lengths, rows.tolist())


def check_sizes(batch_size: int | None, tokens_per_batch: int | None) -> None:
    """Refuses anything but one of the two sizes, at least 1."""
    if (batch_size is None) == (tokens_per_batch is None):
        raise ValueError(
            "batch_size and tokens_per_batch exclude each other, one of them must be null, not "
            f"{batch_size} and {tokens_per_batch}"
        )
    if tokens_per_batch is None:
        check_batch_size(batch_size)
    elif tokens_per_batch < 1:
        raise ValueError(f"tokens_per_batch must be at least 1, not {tokens_per_batch}")


def _cut(
    longest: Tensor,
    batch_size: int | None,
    tokens_per_batch: int | None,
    *,
    drop_last: bool = False,
) -> tuple[Tensor, list[int]]:
    """Cuts samples that are sorted from long to short into buckets of whole batches.

    Args:
        longest: length of each sample, falling.
        batch_size: samples a batch, or
        tokens_per_batch: budget of a batch.
        drop_last: omit the last batch if it is smaller than those of its bucket.

    Returns:
        The bucket of each sample, and the sizes of the batches in the order of the samples.
    """
    shorter = (-longest).contiguous()  # rising, as a binary search wants it
    counts: list[int] = []
    sizes: list[int] = []
    start, end = 0, len(longest)
    while start < end:
        length = int(longest[start])
        size = batch_size or max(1, (tokens_per_batch or 0) // length)
        similar = int(torch.searchsorted(shorter, -(1 - SPREAD) * length, right=True)) - start
        batches = min(max(1, similar // size), MOST_BATCHES)
        stop = min(start + batches * size, end)
        whole, rest = divmod(stop - start, size)
        sizes += [size] * whole + [rest] * (rest > 0 and not drop_last)
        counts.append(stop - start)
        start = stop
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)), sizes
