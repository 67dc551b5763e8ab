"""Two loaders with one face: tensors that fit in memory, and streams of samples from files.

Both give, for the same (seed, epoch), the same batches each time, from any batch number on at no
extra cost. That makes stopping and going on in mid-epoch exact.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from zoo.data.augmentation.base import Augmentation, AugmentationSequence, RandomCrop
from zoo.data.loading.workers import (
    BatchOrder,
    SeededDataset,
    SizedDataset,
    WorkerGuard,
    ignore_signals,
)
from zoo.data.module import check_batch_size

Transform = Callable[[Tensor], Tensor]


class TensorLoader:
    """Batches from tensors in memory, one gather per tensor and batch.

    The tensors live on the training device: no worker processes, no copies between devices.
    Without shuffling, batches are views of the data, and with a single batch they are the data
    themselves; so nobody may write into a batch.

    Args:
        tensors: inputs, then whatever goes with them (targets); all of the same length.
        batch_size: samples a batch; ``None`` for all of them in one batch, in their order.
        shuffle: visit the samples in another order each epoch.
        seed: drives order and augmentation.
        transform: applied to the inputs of each batch at the end (normalisation, say).
        augment: applied to the inputs of each batch, which must be images, before ``transform``.
        drop_last: leave out the last batch of an epoch if it is smaller. Not for evaluation.
        device: where the tensors are put.
    """

    def __init__(
        self,
        tensors: tuple[Tensor, ...],
        *,
        batch_size: int | None,
        shuffle: bool = False,
        seed: int = 0,
        transform: Transform | None = None,
        augment: Sequence[Augmentation] = (),
        drop_last: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        check_batch_size(batch_size, optional=True)
        lengths = [len(tensor) for tensor in tensors]
        if not lengths or lengths[0] == 0 or len(set(lengths)) > 1:
            raise ValueError(f"tensors must have one length greater than 0, not {lengths}")
        self.num_samples = lengths[0]
        self.batch_size = self.num_samples if batch_size is None else batch_size
        if drop_last and self.batch_size > self.num_samples:
            raise ValueError(
                f"batch_size must be at most {self.num_samples}, the number of samples, with "
                f"drop_last, not {self.batch_size}"
            )
        self.device = torch.device(device)
        self._shuffle = shuffle and batch_size is not None
        self._sampler = BatchOrder(
            self.num_samples,
            self.batch_size,
            shuffle=self._shuffle,
            seed=seed,
            drop_last=drop_last,
        )
        self._transform = transform
        self._augment = (
            AugmentationSequence(augment, self.num_samples, seed=seed, device=self.device)
            if augment
            else None
        )
        inputs = tensors[0].to(self.device)
        # Exactly this class: a subclass may do something else when it is called.
        self._crop = augment[0] if augment and type(augment[0]) is RandomCrop else None
        # Pixels-last data are gathered as such: their rows are contiguous, those of the view not.
        self._pixels_last = self._crop is None and _is_channels_last(inputs)
        if self._crop is not None:
            inputs = self._crop.pad(inputs)
        elif self._pixels_last:
            inputs = inputs.permute(0, 2, 3, 1)  # (n, height, width, channels)
        self._tensors = (inputs, *(tensor.to(self.device) for tensor in tensors[1:]))

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._sampler)

    def indices(self, epoch: int, batch: int) -> list[int]:
        return self._sampler.chunks(epoch, batch)[0].tolist()

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, ...]]:
        if not self._shuffle and self._augment is None:
            return self._slices(start)
        if self._augment is None and self._transform is None and not self._pixels_last:
            return self._gathered(epoch, start)
        return self._transformed(epoch, start)

    def _slices(self, start: int) -> Iterator[tuple[Tensor, ...]]:
        for number in range(start, len(self)):
            tensors = self._tensors
            if self.batch_size < self.num_samples:
                begin = number * self.batch_size
                tensors = tuple([t[begin : begin + self.batch_size] for t in tensors])
            yield (self._finish(self._channels_first(tensors[0])), *tensors[1:])

    def _gathered(self, epoch: int, start: int) -> Iterator[tuple[Tensor, ...]]:
        # The loop of small models: nothing but the gathers.
        tensors = self._tensors
        for index in self._sampler.chunks(epoch, start, device=self.device):
            yield tuple([tensor.index_select(0, index) for tensor in tensors])

    def _transformed(self, epoch: int, start: int) -> Iterator[tuple[Tensor, ...]]:
        stored, *others = self._tensors
        augment, crop = self._augment, self._crop
        draws = None if augment is None else augment.draws(epoch)
        for index in self._sampler.chunks(epoch, start, device=self.device):
            targets = [tensor.index_select(0, index) for tensor in others]
            if augment is None or draws is None:
                inputs = self._channels_first(stored.index_select(0, index))
                batch: tuple[Tensor, ...] = (inputs, *targets)
            else:
                numbers = draws.index_select(0, index)  # (batch, num_draws)
                if crop is None:
                    inputs = self._channels_first(stored.index_select(0, index))
                    batch = augment((inputs, *targets), numbers)
                else:
                    inputs = crop.gather(stored, index, numbers[:, : crop.num_draws])
                    batch = augment((inputs, *targets), numbers, first=1)
            yield (self._finish(batch[0]), *batch[1:])

    def _channels_first(self, inputs: Tensor) -> Tensor:
        return inputs.permute(0, 3, 1, 2) if self._pixels_last else inputs

    def _finish(self, inputs: Tensor) -> Tensor:
        return inputs if self._transform is None else self._transform(inputs)


class StreamLoader:
    """Batches from a map-style data set that makes its samples one by one, from files for example.

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
        drop_last: leave out the last batch of an epoch if it is smaller. Not for evaluation.
        transform: applied to the inputs of each batch at the end, on the device.
        augment: applied to the inputs of each batch on the device, with the same random numbers
            as in :class:`TensorLoader`.
        device: where batches are moved to.
        pin_memory: copy by way of page-locked memory, beside the computation; ``None``: on CUDA.
        prefetch_factor: batches that each worker prepares ahead; ``None``: torch's default.
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
    ) -> None:
        check_batch_size(batch_size)
        if num_workers < 0:
            raise ValueError(f"num_workers must not be negative, not {num_workers}")
        self.num_samples = len(dataset)
        if self.num_samples < (batch_size if drop_last else 1):
            raise ValueError(
                f"dataset must hold at least one batch, not {self.num_samples} samples "
                f"(batch_size {batch_size}, drop_last {drop_last})"
            )
        self.batch_size = batch_size
        self.device = torch.device(device)
        self._transform = transform
        self._augment = (
            AugmentationSequence(augment, self.num_samples, seed=seed, device=self.device)
            if augment
            else None
        )
        self._sampler = BatchOrder(
            self.num_samples, batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last
        )
        self._num_workers = num_workers
        self._make_loader = functools.partial(
            DataLoader,
            SeededDataset(dataset, seed),
            batch_sampler=self._sampler,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            prefetch_factor=prefetch_factor if num_workers else None,
            pin_memory=self.device.type == "cuda" if pin_memory is None else pin_memory,
            worker_init_fn=ignore_signals,
            generator=torch.Generator(),  # else every epoch takes a draw from the global state
        )
        self._loader: DataLoader[Any] | None = None
        self._guard: WorkerGuard | None = None
        self._passes = 0

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._sampler)

    def indices(self, epoch: int, batch: int) -> list[int]:
        return self._sampler.chunks(epoch, batch)[0].tolist()

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        if start >= len(self):
            return
        self._passes += 1
        this_pass = self._passes
        self._sampler.epoch, self._sampler.start = epoch, start
        draws = None if self._augment is None else self._augment.draws(epoch)
        indices = iter(self._sampler.chunks(epoch, start, device=self.device))
        for batch in self._start():
            batch = _move(batch, self.device)
            if self._augment is not None and draws is not None:
                numbers = draws.index_select(0, next(indices))  # (batch, num_draws)
                batch = self._augment(tuple(batch), numbers)
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
        if not self._num_workers or self._guard is not None:
            return iter(self._loader)
        iterator = iter(self._loader)
        self._guard = WorkerGuard(iterator)
        return iterator

    def close(self) -> None:
        """Ends the worker processes; the next epoch starts new ones."""
        if self._guard is not None:
            self._guard.close()
            self._guard = None
            self._loader = None

    def __del__(self) -> None:
        """Leaves no worker behind."""
        if getattr(self, "_guard", None) is not None:
            self.close()


def _is_channels_last(inputs: Tensor) -> bool:
    return (
        inputs.dim() == 4
        and not inputs.is_contiguous()
        and inputs.is_contiguous(memory_format=torch.channels_last)
    )


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
