"""Batches from a data set that makes its samples one by one, from files for example."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from zoo.data.augmentation.base import Augmentation, AugmentationSequence
from zoo.data.download import DataError
from zoo.data.loading.order import BatchOrder
from zoo.data.loading.tensor import Transform
from zoo.data.loading.workers import (
    Keys,
    SeededDataset,
    SizedDataset,
    WorkerGuard,
    collate,
    ignore_signals,
)
from zoo.data.module import Part
from zoo.data.sampling import Balance


class StreamLoader:
    """Batches from a map-style data set.

    torch's `DataLoader` with our own order, and with random numbers of its own for each sample
    (see :class:`~zoo.data.loading.workers.SeededDataset`), so that the number of workers changes
    nothing. The global random states of the main process are neither used nor changed. With
    workers, only one epoch can be under way at a time: a newer call of :meth:`batches` ends an
    older one.

    Args:
        dataset: has ``len()`` and gives a sample, such as ``(image, label)``, for each number.
        batch_size: samples a batch.
        shuffle: visit the samples in another order each epoch.
        seed: drives order, the samples' random states and augmentation.
        num_workers: processes that make samples; 0: the main process does.
        drop_last: omit the last batch of an epoch if it is smaller. Not for evaluation.
        transform: applied to the inputs of each batch at the end, on the device.
        augment: applied to the inputs of each batch on the device, with the same random numbers
            as in :class:`TensorLoader`.
        device: where batches are moved to.
        pin_memory: copy by way of page-locked memory, during the computation; ``None``: on CUDA.
        prefetch_factor: batches that each worker prepares ahead; ``None``: torch's default.
        part: ``(rank, world)``: give this slice of each batch, ``None`` where it is empty.
        balance: in training, let every class come equally often.
        classes: of the samples, int64 ``(samples,)``, where they are balanced.
    """

    def __init__(
        self,
        dataset: SizedDataset,
        *,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        num_workers: int = 0,
        drop_last: bool = False,
        transform: Transform | None = None,
        augment: Sequence[Augmentation] = (),
        device: torch.device | str = "cpu",
        pin_memory: bool | None = None,
        prefetch_factor: int | None = None,
        part: Part = (0, 1),
        balance: Balance = "none",
        classes: Tensor | None = None,
    ) -> None:
        if num_workers < 0:
            raise ValueError(f"num_workers must not be negative, not {num_workers}")
        self.num_samples = len(dataset)
        if self.num_samples < 1:
            raise ValueError("dataset must hold at least one sample, not 0")
        self._order = BatchOrder(
            self.num_samples,
            batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            part=part,
            balance=balance,
            classes=classes,
        )
        self.batch_size = batch_size
        self.device = torch.device(device)
        self._transform = transform
        self._augment = (
            AugmentationSequence(augment, self.num_samples, seed=seed, device=self.device)
            if augment
            else None
        )
        self._keys = Keys(self._order, ahead=0 if self._augment is None else self._augment.reach)
        self._num_workers = num_workers
        self._make_loader = functools.partial(
            DataLoader,
            SeededDataset(dataset, seed),
            batch_sampler=self._keys,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            prefetch_factor=prefetch_factor if num_workers else None,
            pin_memory=self.device.type == "cuda" if pin_memory is None else pin_memory,
            collate_fn=collate,
            worker_init_fn=ignore_signals,
            generator=torch.Generator(),  # else every epoch takes a draw from the global state
        )
        self._loader: DataLoader[Any] | None = None
        self._guard: WorkerGuard | None = None
        self._passes = 0

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._order)

    def indices(self, epoch: int, batch: int) -> list[int]:
        return self._order.indices(epoch, batch)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        if start >= len(self):
            return
        self._passes += 1
        this_pass = self._passes
        self._keys.epoch, self._keys.start = epoch, start
        ahead = self._keys.ahead
        draws = None if self._augment is None else self._augment.draws(epoch)
        samples = self._start()
        for index in self._order.chunks(epoch, start, device=self.device, ahead=ahead):
            if not len(index):
                yield None
                continue
            batch = self._next(samples)
            if isinstance(batch, DataError):
                raise batch
            batch = _move(batch, self.device)
            if self._augment is not None and draws is not None:
                numbers = draws.index_select(0, index)  # (batch, num_draws)
                batch = self._order.own(self._augment(tuple(batch), numbers), ahead)
            if self._transform is not None:
                batch = (self._transform(batch[0]), *batch[1:])
            yield batch
            if self._num_workers and self._passes != this_pass:
                raise RuntimeError(
                    "this epoch was ended by a newer call of batches(), which took its workers"
                )

    def _start(self) -> Iterator[Any]:
        if self._loader is None:
            self._loader = self._make_loader()
        if self._num_workers and self._guard is None:
            self._guard = WorkerGuard(self._loader)
            return self._guard.iterator
        return iter(self._loader)

    def _next(self, samples: Iterator[Any]) -> Any:
        try:
            return next(samples)
        except (ConnectionError, EOFError, FileNotFoundError):
            if self._guard is not None:
                self._guard.require_alive()
            raise

    def close(self) -> None:
        """Ends the worker processes; the next epoch starts new ones."""
        if self._guard is not None:
            self._guard.close()
            self._guard = None
            self._loader = None

    def __del__(self) -> None:
        """Leaves no worker behind."""
        if (guard := getattr(self, "_guard", None)) is not None:
            guard.abandon()


def _move(batch: Any, device: torch.device) -> Any:
    """Moves the tensors of a batch, however nested; a copy from pinned memory is not waited for."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: _move(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        moved = [_move(value, device) for value in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else tuple(moved)
    return batch
