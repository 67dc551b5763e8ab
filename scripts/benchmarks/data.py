"""Data in memory for training alone."""

from collections.abc import Iterator
from typing import Any

from zoo.data.loading.tensor import TensorLoader
from zoo.data.loading.windows import WindowLoader


class TrainingOnly:
    """A loader as the data of a trainer that neither validates nor tests.

    Args:
        loader: of the training batches.
    """

    splits = ("train",)

    def __init__(self, loader: TensorLoader | WindowLoader) -> None:
        self.loaders = {"train": loader}

    def batches(self, split: str, epoch: int, start: int = 0) -> Iterator[Any]:
        return self.loaders[split].batches(epoch, start)

    def num_batches(self, split: str) -> int:
        return len(self.loaders[split])
