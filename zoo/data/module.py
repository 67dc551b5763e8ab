"""What every data set looks like to the rest of the zoo: a few facts and a loader per split."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Protocol

import torch

from zoo.data.text.vocabulary import Vocabulary


class Loader(Protocol):
    """Gives the batches of one split, the same ones each time it is asked for the same epoch."""

    num_samples: int

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """The batches of ``epoch`` from number ``start`` on; starting late costs nothing extra."""
        ...

    def __len__(self) -> int:
        """Batches an epoch."""
        ...

    def indices(self, epoch: int, batch: int) -> list[int]:
        """Which samples of the split are in batch number ``batch`` of ``epoch``."""
        ...


class DataModule(ABC):
    """A data set: its sizes, its splits, and a loader for each of them.

    The constructor only stores and checks its arguments. :meth:`setup` reads (and, where there is
    something to download, downloads) the data and makes the loaders. Arguments that were ``auto``
    and that :meth:`setup` has found out are in :meth:`resolved`; a module built again with them
    does without the data whatever needs none, such as preparing an image.

    Attributes:
        vocabularies: those of a text, by the name of the task's argument that takes one:
            :meth:`setup` learns them, unless they are there, from the folder of a run.
    """

    def __init__(self) -> None:
        self.loaders: dict[str, Loader] = {}
        self.vocabularies: dict[str, Vocabulary] = {}

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits this data set has, known before :meth:`setup`."""
        return ("train", "val", "test")

    @abstractmethod
    def setup(self, *, seed: int = 0, device: torch.device | str = "cpu") -> None:
        """Loads the data and makes the loaders.

        Args:
            seed: drives order and augmentation (never which sample is in which split).
            device: where the batches are; data that fit in memory live there altogether.
        """

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """The sizes that a model may need: ``num_classes``, ``in_channels``, ``vocab_size`` ..."""

    def resolved(self) -> dict[str, Any]:
        """Constructor arguments that were ``auto`` and are now known, as plain Python."""
        return {}

    def batches(self, split: str, epoch: int, start: int = 0) -> Iterator[Any]:
        """The batches of one epoch of ``split``, from number ``start`` on."""
        return self._loader(split).batches(epoch, start)

    def num_batches(self, split: str) -> int:
        """Batches an epoch of ``split``."""
        return len(self._loader(split))

    def _loader(self, split: str) -> Loader:
        if not self.loaders:
            raise RuntimeError(f"{type(self).__name__}.setup() must be called before its batches")
        if split not in self.loaders:
            raise ValueError(f"split must be one of {', '.join(self.loaders)}, not {split!r}")
        return self.loaders[split]


def check_batch_size(batch_size: int | None, *, optional: bool = False) -> None:
    """Refuses a batch size that is no positive whole number (or ``None``, where allowed)."""
    if batch_size is None and optional:
        return
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        allowed = "at least 1 or None" if optional else "at least 1"
        raise ValueError(f"batch_size must be {allowed}, not {batch_size!r}")
