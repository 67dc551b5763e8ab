"""What every data set looks like to the rest of the zoo: a few facts and a loader per split."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch

Part = tuple[int, int]
"""Which process of how many: (rank, world); (0, 1) for a run of one process."""


class Vocabulary(Protocol):
    """What is known here of a vocabulary: it can be stored as JSON."""

    def to_json(self) -> dict[str, Any]:
        """All of it as plain Python."""
        ...


class Loader(Protocol):
    """Gives the batches of one split, the same ones each time it is asked for the same epoch.

    A loader of one part of several gives its slice of each batch, ``None`` where that is empty
    (`zoo.data.loading.order`); ``num_samples``, ``len()`` and ``indices`` are about whole batches.
    """

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
    """A data set: its facts, its splits, and a loader for each of them.

    The constructor only stores and checks its arguments. :meth:`setup` reads (and, where there is
    something to download, downloads) the data and makes the loaders. Arguments that were ``auto``
    and that :meth:`setup` has found out are in :meth:`resolved`; a module built again with them
    does without the data whatever needs none, such as preparing an image.

    Attributes:
        changeable: constructor arguments that a stored run may change, since they change nothing
            about its batches: where the data lie and how they are read. One of a component within
            this one is written with a dot (``text.root``).
        for_training: constructor arguments that change nothing but the training batches: runs that
            differ in no others are evaluated on the same samples, prepared alike.
        repeated: constructor arguments of which each value is a repetition of the same experiment
            (a fold of a cross-validation): sweeps give means over them, as over seeds.
        vocabularies: those of a text, by the name of the task's argument that takes one.
            :meth:`setup` learns them, unless :meth:`load_artifacts` has put them there.
        notes: what :meth:`setup` has found in the user's files, a line each, said at the start.
    """

    changeable: ClassVar[tuple[str, ...]] = ()
    for_training: ClassVar[tuple[str, ...]] = ("batch_size", "drop_last")
    repeated: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self.loaders: dict[str, Loader] = {}
        self.vocabularies: dict[str, Any] = {}
        self.notes: list[str] = []

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits this data set has, known before :meth:`setup`."""
        return ("train", "val", "test")

    @abstractmethod
    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        """Loads the data and makes the loaders.

        Args:
            seed: drives order and augmentation (never which sample is in which split).
            device: where the batches are; data that fit in memory live there altogether.
            part: ``(rank, world)``: the loaders give slice ``rank`` of ``world`` of every batch.
        """

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What ``auto`` in the configuration of a model or a task can stand for.

        ``num_classes``, ``in_channels``, ``image_size``, ``vocab_size``, ``class_names`` ...: plain
        Python, named like the argument that it fills. ``None`` means that these data have none,
        and fills ``null``.
        """

    def all_facts(self) -> dict[str, Any]:
        """Those of :meth:`facts`, and ``train_samples``, which every data set has once set up."""
        return {"train_samples": self._loader("train").num_samples} | self.facts()

    def lacks(self) -> dict[str, str]:
        """Why a fact that such data usually have is not in :meth:`facts`, by its name."""
        return {}

    def resolved(self) -> dict[str, Any]:
        """Constructor arguments that were ``auto`` and are now known, as plain Python."""
        return {}

    def artifacts(self) -> dict[str, str]:
        """What :meth:`setup` has learned and a later process needs: file name to JSON text."""
        return {
            f"{name}.json": json.dumps(vocabulary.to_json(), indent=2) + "\n"
            for name, vocabulary in self.vocabularies.items()
        }

    def load_artifacts(self, folder: Path) -> None:
        """Takes up what an earlier :meth:`setup` has learned, before :meth:`setup` is called.

        Args:
            folder: of a run, where the files of :meth:`artifacts` are.

        Raises:
            ValueError: a file is damaged; it is named.
        """
        for file in sorted(folder.glob("*vocabulary.json")):
            try:
                content = json.loads(file.read_text(encoding="utf-8"))
                self.vocabularies[file.stem] = self.restore_vocabulary(content)
            except (OSError, ValueError, KeyError, TypeError) as error:
                reason = " ".join(str(error).split())
                raise ValueError(
                    f"{file} cannot be read ({reason}); without it this run's tokens have no "
                    "meaning: restore it"
                ) from error

    def restore_vocabulary(self, stored: dict[str, Any]) -> Vocabulary:
        """The vocabulary whose ``to_json()`` was ``stored``; data sets of text override this."""
        raise ValueError(f"{type(self).__name__} has no vocabulary")

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
    """Refuses a batch size that is not a positive whole number (or ``None``, where allowed)."""
    if batch_size is None and optional:
        return
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        allowed = "at least 1 or None" if optional else "at least 1"
        raise ValueError(f"batch_size must be {allowed}, not {batch_size!r}")
