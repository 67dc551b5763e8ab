"""Pairs of token sequences, such as a sentence and its translation, in padded batches."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.data.loading.bucketing import BucketLoader
from zoo.data.module import Part
from zoo.data.sequences.special import BEGIN, END


class PairBatch(NamedTuple):
    """Padded pairs; padding is 0 and stands on the right.

    Attributes:
        source: tokens and `</s>`, int64 ``(batch, S)``.
        source_lengths: tokens of each source, `</s>` included, int64 ``(batch,)`` on the CPU.
        target: `<s>`, tokens and `</s>`, int64 ``(batch, T)``.
        target_lengths: tokens of each target, `<s>` and `</s>` included, likewise.
        references: the targets as text, exactly as they were written; empty where there is none.
    """

    source: Tensor
    source_lengths: Tensor
    target: Tensor
    target_lengths: Tensor
    references: list[str]


def pair_loader(
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    references: Sequence[str] = (),
    *,
    batch_size: int | None = None,
    tokens_per_batch: int | None = None,
    shuffle: bool = False,
    seed: int = 0,
    drop_last: bool = False,
    device: torch.device | str = "cpu",
    part: Part = (0, 1),
) -> BucketLoader:
    """Batches of pairs of similar length.

    Args:
        sources: tokens of each source, without special ones.
        targets: tokens of each target, without special ones.
        references: the text of each target, or nothing.
        batch_size: see :class:`~zoo.data.loading.bucketing.BucketLoader`.
        tokens_per_batch: instead, see there.
        shuffle: whether epochs differ.
        seed: of the order.
        drop_last: omit a smaller batch at the end of an epoch. Not for evaluation.
        device: where the tokens are; lengths stay on the CPU.
        part: ``(rank, world)``: give this slice of each batch.
    """

    def collate(columns: list[Tensor], lengths: list[Tensor], rows: list[int]) -> PairBatch:
        (source, target), (source_lengths, target_lengths) = columns, lengths
        texts = [references[row] for row in rows] if references else []
        return PairBatch(source, source_lengths, target, target_lengths, texts)

    return BucketLoader(
        [
            [torch.tensor([*tokens, END]) for tokens in sources],
            [torch.tensor([BEGIN, *tokens, END]) for tokens in targets],
        ],
        collate,
        batch_size=batch_size,
        tokens_per_batch=tokens_per_batch,
        shuffle=shuffle,
        seed=seed,
        drop_last=drop_last,
        device=device,
        part=part,
    )
