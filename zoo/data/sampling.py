"""Randomness that can be named: orders and seeds as pure functions of a few numbers.

Nothing here reads or advances a global random state, so the same arguments give the same result in
any process, on any device and after any number of other draws.
"""

import hashlib

import torch
from torch import Tensor


def mix_seed(*parts: int | str) -> int:
    """Mixes numbers and words into one 64-bit seed, equal on every machine and Python version.

    Neighbouring inputs (epoch 3 and 4 of seed 0, or epoch 3 of seeds 0 and 1) give unrelated seeds,
    which adding them up would not.
    """
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def seeded_generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded with :func:`mix_seed` of ``parts``."""
    return torch.Generator().manual_seed(mix_seed(*parts))


def epoch_order(num_samples: int, *, seed: int, epoch: int) -> Tensor:
    """The permutation in which an epoch visits the samples: a pure function of seed and epoch."""
    return torch.randperm(num_samples, generator=seeded_generator("order", seed, epoch))


def evaluation_order(num_samples: int) -> Tensor:
    """The same permutation each time, for a split that is sorted by class.

    The first batches of a sorted split are of one class: what `limit_eval_batches` takes of it, or
    what a batch normalisation in training mode sees, would say little.
    """
    return torch.randperm(num_samples, generator=seeded_generator("evaluation order"))
