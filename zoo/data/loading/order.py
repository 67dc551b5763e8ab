"""Which samples are in which batch: one object for every loader.

The batches of an epoch are a function of (seed, epoch) alone, whatever the number of processes. A
process that is part ``(rank, world)`` of several takes its slice of every batch: the slices of all
ranks, one after the other, are the batch, so that no sample is padded, left out or seen twice, in
training or in evaluation. Since a batch is cut and not dealt out, ``batch_size`` is that of all
processes together.

A batch may be smaller than the world: the last one of an epoch, or whole images that are evaluated
one by one. The last ranks then have an empty slice of it, and their loader gives ``None`` in its
place: every rank counts the same batches, so that all stop and resume at the same one, and the
loop joins the others' collective calls with a count of 0. An empty tensor could be mistaken for a
batch, and its mean loss would be NaN.
"""

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor

from zoo.data.module import Part, check_batch_size
from zoo.data.sampling import Balance, balanced_order, epoch_order


def share(size: int, part: Part) -> slice:
    """The rows of a batch of ``size`` that a part has; the first ranks have one more, if any."""
    rank, world = part
    rows, more = divmod(size, world)
    start = rank * rows + min(rank, more)
    return slice(start, start + rows + (rank < more))


def check_part(part: Part, batch_size: int | None = None) -> None:
    """Refuses a rank outside its world, and batches of which some part would never have any."""
    rank, world = part
    if not 0 <= rank < world:
        raise ValueError(f"part must be (rank, world) with 0 <= rank < world, not {part}")
    if batch_size is not None and batch_size < world:
        raise ValueError(
            f"batch_size must be at least {world}, a sample for each process, not {batch_size}"
        )


def check_balance(balance: str) -> None:
    """Refuses what is no way to balance classes."""
    if balance not in get_args(Balance):
        raise ValueError(f"balance must be one of {', '.join(get_args(Balance))}, not {balance!r}")


class BatchOrder:
    """The batches of each epoch, as numbers of samples, and this part's slice of them.

    Args:
        num_samples: samples in the split.
        batch_size: samples a batch, of all parts together.
        shuffle: visit the samples in another order each epoch.
        seed: together with the epoch, all that the order depends on.
        drop_last: omit the last batch of an epoch if it is smaller. Not for evaluation.
        part: ``(rank, world)``.
        balance: visit every class equally often (`zoo.data.sampling.balanced_order`).
        classes: of the samples, on the CPU, where they are balanced.

    Attributes:
        num_samples: samples an epoch, which are others than the split's where they are balanced.

    Raises:
        ValueError: a size is too small or too large, or there is no such part.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int,
        drop_last: bool = False,
        part: Part = (0, 1),
        balance: Balance = "none",
        classes: Tensor | None = None,
    ) -> None:
        check_batch_size(batch_size)
        check_balance(balance)
        self.balance = balance if shuffle else "none"
        self.classes = classes
        if self.balance != "none":
            if classes is None or classes.ndim != 1 or classes.is_floating_point():
                raise ValueError(
                    f"balance={balance} needs one class a sample, which these data do not have: "
                    "omit it"
                )
            num_samples = len(balanced_order(classes, self.balance, seed=seed, epoch=0))
        check_part(part, batch_size if shuffle else None)
        if drop_last and batch_size > num_samples:
            raise ValueError(
                f"batch_size must be at most {num_samples}, the number of samples, with "
                f"drop_last, not {batch_size}"
            )
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.part = part

    def __len__(self) -> int:
        """Batches an epoch."""
        whole, rest = divmod(self.num_samples, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def batches(
        self, epoch: int, start: int = 0, *, device: torch.device | str = "cpu"
    ) -> Sequence[Tensor]:
        """The samples of each batch of ``epoch``, of all parts, from number ``start`` on.

        Starting late costs nothing extra, and all numbers go to the device at once.
        """
        if start >= len(self):
            return ()
        if self.balance != "none":
            assert self.classes is not None
            order = balanced_order(self.classes, self.balance, seed=self.seed, epoch=epoch)
        elif self.shuffle:
            order = epoch_order(self.num_samples, seed=self.seed, epoch=epoch)
        else:
            order = torch.arange(self.num_samples)
        order = order[start * self.batch_size : len(self) * self.batch_size]
        return order.to(device).split(self.batch_size)

    def chunks(
        self, epoch: int, start: int = 0, *, device: torch.device | str = "cpu", ahead: int = 0
    ) -> Sequence[Tensor]:
        """This part's slice of each batch; an empty one where there are fewer samples than parts.

        Args:
            epoch: which one.
            start: number of the first batch.
            device: where the numbers are wanted.
            ahead: follow a slice with so many more samples of its batch, the first ones after the
                last: those with which its own are to be mixed. A whole batch has its own.
        """
        batches = self.batches(epoch, start, device=device)
        if self.part[1] == 1:
            return batches
        return [self._slice(batch, ahead) for batch in batches]

    def own(self, batch: tuple[Tensor, ...], ahead: int) -> tuple[Tensor, ...]:
        """What remains of a batch from :meth:`chunks` once its samples are mixed."""
        return tuple([t[:-ahead] for t in batch]) if ahead and self.part[1] > 1 else batch

    def _slice(self, batch: Tensor, ahead: int) -> Tensor:
        rows = share(len(batch), self.part)
        if not ahead or rows.start == rows.stop:
            return batch[rows]
        following = torch.arange(rows.start, rows.stop + ahead, device=batch.device)
        return batch[following % len(batch)]

    def indices(self, epoch: int, batch: int) -> list[int]:
        """The samples of one batch, of all parts."""
        samples: list[int] = self.batches(epoch, batch)[0].tolist()
        return samples
