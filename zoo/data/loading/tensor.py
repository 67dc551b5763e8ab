"""Batches from tensors that fit in memory: on the training device, one gather per batch."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from zoo.data.augmentation.base import Augmentation, AugmentationSequence, RandomCrop
from zoo.data.loading.order import BatchOrder, share
from zoo.data.module import Part, check_batch_size
from zoo.data.sampling import Balance

Transform = Callable[[Tensor], Tensor]
Batch = tuple[Tensor, ...]


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
        drop_last: omit the last batch of an epoch if it is smaller. Not for evaluation.
        device: where the tensors are put.
        part: ``(rank, world)``: give this slice of each batch, ``None`` where it is empty.
        balance: in training, let every class of the last tensor come equally often.
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
        part: Part = (0, 1),
        balance: Balance = "none",
    ) -> None:
        check_batch_size(batch_size, optional=True)
        if batch_size is None and balance != "none":
            raise ValueError(
                f"balance={balance} needs a batch_size: all samples in one batch (null) are what "
                "they are; weigh the classes instead (task.class_weights or task.pos_weight)"
            )
        lengths = [len(tensor) for tensor in tensors]
        if not lengths or lengths[0] == 0 or len(set(lengths)) > 1:
            raise ValueError(f"tensors must have one length greater than 0, not {lengths}")
        self.num_samples = lengths[0]
        self.batch_size = self.num_samples if batch_size is None else batch_size
        self.device = torch.device(device)
        self._shuffle = shuffle and batch_size is not None
        self._order = BatchOrder(
            self.num_samples,
            self.batch_size,
            shuffle=self._shuffle,
            seed=seed,
            drop_last=drop_last,
            part=part,
            balance=balance,
            classes=tensors[-1].cpu() if balance != "none" else None,
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
        return len(self._order)

    def indices(self, epoch: int, batch: int) -> list[int]:
        return self._order.indices(epoch, batch)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch | None]:
        if not self._shuffle and self._augment is None:
            return self._slices(start)
        if self._augment is None and self._transform is None and not self._pixels_last:
            return self._gathered(epoch, start)
        return self._transformed(epoch, start)

    def _slices(self, start: int) -> Iterator[Batch | None]:
        for number in range(start, len(self)):
            tensors = self._tensors
            begin = number * self.batch_size
            rows = share(min(self.batch_size, self.num_samples - begin), self._order.part)
            if rows.start == rows.stop:
                yield None
                continue
            if rows.stop - rows.start < self.num_samples:
                tensors = tuple([t[begin + rows.start : begin + rows.stop] for t in tensors])
            yield (self._finish(self._channels_first(tensors[0])), *tensors[1:])

    def _gathered(self, epoch: int, start: int) -> Iterator[Batch | None]:
        # The loop of small models: nothing but the gathers.
        tensors = self._tensors
        for index in self._order.chunks(epoch, start, device=self.device):
            if index.numel():
                yield tuple([tensor.index_select(0, index) for tensor in tensors])
            else:
                yield None

    def _transformed(self, epoch: int, start: int) -> Iterator[Batch | None]:
        stored, *others = self._tensors
        augment, crop = self._augment, self._crop
        draws = None if augment is None else augment.draws(epoch)
        ahead = 0 if augment is None else augment.reach
        for index in self._order.chunks(epoch, start, device=self.device, ahead=ahead):
            if not index.numel():
                yield None
                continue
            targets = [tensor.index_select(0, index) for tensor in others]
            if augment is None or draws is None:
                inputs = self._channels_first(stored.index_select(0, index))
                batch: Batch = (inputs, *targets)
            else:
                numbers = draws.index_select(0, index)  # (batch, num_draws)
                if crop is None:
                    inputs = self._channels_first(stored.index_select(0, index))
                    batch = augment((inputs, *targets), numbers)
                else:
                    inputs = crop.gather(stored, index, numbers[:, : crop.num_draws])
                    batch = augment((inputs, *targets), numbers, first=1)
                batch = self._order.own(batch, ahead)
            yield (self._finish(batch[0]), *batch[1:])

    def _channels_first(self, inputs: Tensor) -> Tensor:
        return inputs.permute(0, 3, 1, 2) if self._pixels_last else inputs

    def _finish(self, inputs: Tensor) -> Tensor:
        return inputs if self._transform is None else self._transform(inputs)


def _is_channels_last(inputs: Tensor) -> bool:
    return (
        inputs.dim() == 4
        and not inputs.is_contiguous()
        and inputs.is_contiguous(memory_format=torch.channels_last)
    )
