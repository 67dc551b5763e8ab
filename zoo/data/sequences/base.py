"""What the data sets of drawn sequences share: how many there are, and from which seed."""

from typing import TypedDict

from zoo.data.module import DataModule, check_batch_size
from zoo.data.splits import SPLITS


class DrawnOptions(TypedDict, total=False):
    """Arguments of :class:`DrawnSequences` whose defaults are the same for all data sets."""

    eval_samples: int
    data_seed: int
    drop_last: bool


class DrawnSequences(DataModule):
    """Sequences that are drawn once, from a seed of their own: nothing to download.

    Args:
        batch_size: sequences a batch.
        num_samples: sequences to train on.
        eval_samples: sequences of val, and of test.
        data_seed: another seed, other sequences.
        drop_last: omit the last training batch of an epoch if it is smaller.
    """

    splits = SPLITS

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
