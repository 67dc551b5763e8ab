"""The first samples of an evaluation, to look at."""

from typing import Self

import torch
from torch import Tensor


class FirstSamples:
    """Keeps the first few samples of an evaluation, with all that belongs to each of them.

    Args:
        size: how many to keep.
    """

    def __init__(self, size: int = 4) -> None:
        self.size = size
        self.kept: list[tuple[Tensor, ...]] = []

    def update(self, *parts: Tensor) -> None:
        """Takes batches of what belongs together: inputs, targets, predictions, say."""
        missing = self.size - len(self.kept)
        for entries in zip(*(part[:missing] for part in parts), strict=True):
            # Copies, since a view would hold on to its whole batch.
            self.kept.append(tuple(entry.clone() for entry in entries))

    def merge(self, other: "FirstSamples") -> None:
        """Fills up with what another one has kept."""
        self.kept = [*self.kept, *other.kept][: self.size]

    def compute(self) -> list[tuple[Tensor, ...]]:
        return self.kept

    def reset(self) -> None:
        self.kept = []

    def to(self, device: torch.device | str) -> Self:
        self.kept = [tuple(entry.to(device) for entry in sample) for sample in self.kept]
        return self
