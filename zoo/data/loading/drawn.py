"""What data sets share that are drawn: how many samples there are, and from which seed."""

from abc import abstractmethod
from typing import ClassVar, TypedDict

import torch
from torch import Tensor

from zoo.data.loading.tensor import TensorLoader
from zoo.data.module import DataModule, Part, check_batch_size
from zoo.data.sampling import Balance, seeded_generator
from zoo.data.splits import SPLITS


class DrawnOptions(TypedDict, total=False):
    """Arguments of :class:`DrawnSamples` whose defaults are the same for all data sets."""

    eval_samples: int
    data_seed: int
    drop_last: bool


class DrawnSamples(DataModule):
    """Samples that are drawn once, from a seed of their own: nothing to download.

    Args:
        batch_size: samples a batch.
        num_samples: samples to train on.
        eval_samples: samples of val, and of test.
        data_seed: another seed, other samples.
        drop_last: omit the last training batch of an epoch if it is smaller.

    Attributes:
        balance: whether classes come equally often in training, see
            :func:`~zoo.data.sampling.balanced_order`.
    """

    splits = SPLITS
    balance: Balance = "none"

    def __init__(
        self,
        *,
        batch_size: int,
        num_samples: int,
        eval_samples: int = 1_000,
        data_seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        for name, value in (("num_samples", num_samples), ("eval_samples", eval_samples)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        self.batch_size = batch_size
        self.counts = {"train": num_samples, "val": eval_samples, "test": eval_samples}
        self.data_seed = data_seed
        self.drop_last = drop_last


class DrawnTensors(DrawnSamples):
    """Batches ``(inputs, targets)`` of two tensors.

    Attributes:
        kind: names the random numbers of the draw.
    """

    kind: ClassVar[str]

    @abstractmethod
    def _draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws inputs and targets."""

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        for split, count in self.counts.items():
            self.loaders[split] = TensorLoader(
                self._draw(count, seeded_generator(self.kind, self.data_seed, split)),
                batch_size=self.batch_size,
                shuffle=split == "train",
                seed=seed,
                drop_last=self.drop_last and split == "train",
                device=device,
                part=part,
                balance=self.balance,
            )
