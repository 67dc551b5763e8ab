"""Sequences with a class, or with one for every step, in padded batches."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from zoo.data.loading.bucketing import BucketLoader
from zoo.data.module import Part

IGNORE_INDEX = -100
"""Target of a step that has none: torch's `ignore_index`, which the tasks take too."""


class SequenceBatch(NamedTuple):
    """Padded sequences and what is to be said about them.

    Attributes:
        inputs: tokens ``(batch, time)`` of type int64, or vectors ``(batch, time, features)``;
            zeros where a sequence has ended.
        targets: a class a sequence, int64 ``(batch,)``, or a step, ``(batch, time)`` with -100
            where a sequence has ended.
        lengths: steps of each sequence, int64 ``(batch,)`` on the CPU.
    """

    inputs: Tensor
    targets: Tensor
    lengths: Tensor

    def to(self, device: torch.device | str) -> Self:
        """The batch on another device, but for the lengths."""
        return self._replace(inputs=self.inputs.to(device), targets=self.targets.to(device))


def sequence_loader(
    inputs: Sequence[Tensor],
    targets: Sequence[int] | Sequence[Tensor],
    *,
    batch_size: int,
    shuffle: bool = False,
    seed: int = 0,
    drop_last: bool = False,
    device: torch.device | str = "cpu",
    part: Part = (0, 1),
) -> BucketLoader:
    """Batches of sequences of similar length.

    Args:
        inputs: tokens ``(time,)`` or vectors ``(time, features)``, of any length above 0.
        targets: of each the class, or the classes of its steps ``(time,)``.
        batch_size: sequences a batch.
        shuffle: whether epochs differ.
        seed: of the order.
        drop_last: omit a smaller batch at the end of an epoch. Not for evaluation.
        device: where the batches are; lengths stay on the CPU.
        part: ``(rank, world)``: give this slice of each batch.
    """
    is_aligned = isinstance(targets[0], Tensor)

    def collate(columns: list[Tensor], lengths: list[Tensor], rows: list[int]) -> SequenceBatch:
        del rows
        sequences, labels = columns
        if not is_aligned:
            return SequenceBatch(sequences, labels.squeeze(1), lengths[0])
        steps = torch.arange(labels.size(1), device=labels.device)
        ended = steps >= lengths[1].to(labels.device).unsqueeze(1)  # (batch, time)
        return SequenceBatch(sequences, labels.masked_fill(ended, IGNORE_INDEX), lengths[0])

    labels = [torch.as_tensor(target).view(-1) for target in targets]  # (time,) or (1,)
    return BucketLoader(
        [inputs, labels],
        collate,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        drop_last=drop_last,
        device=device,
        part=part,
    )
