"""The first training batch as a whole data set, for `trainer.overfit`."""

from collections.abc import Iterator
from typing import Any


class FirstBatch:
    """Training and validation data that are one batch: the first of a data module's first epoch.

    Args:
        data: a data module, set up.
    """

    splits = ("train", "val")

    def __init__(self, data: Any) -> None:
        self._data = data
        self._batch = next(iter(data.batches("train", 0)))
        self.loaders = {"train": self, "val": self}
        self.num_samples = len(data.loaders["train"].indices(0, 0))

    def __len__(self) -> int:
        return 1

    def num_batches(self, split: str) -> int:
        """One."""
        return 1

    def batches(self, split: str, epoch: int, start: int = 0) -> Iterator[Any]:
        """The batch."""
        return iter([self._batch][start:])

    def indices(self, epoch: int, batch: int) -> list[int]:
        """The samples of the batch."""
        found: list[int] = self._data.loaders["train"].indices(0, 0)
        return found
