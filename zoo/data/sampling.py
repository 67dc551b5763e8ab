"""Randomness that can be named: orders and seeds as pure functions of a few numbers.

Nothing here reads or advances a global random state, so the same arguments give the same result in
any process, on any device and after any number of other draws.
"""

import hashlib
from typing import Literal

import torch
from torch import Tensor

Balance = Literal["none", "undersample", "oversample", "resample"]
"""Whether every class comes equally often in training, and how: see :func:`balanced_order`."""


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


def balanced_order(classes: Tensor, balance: Balance, *, seed: int, epoch: int) -> Tensor:
    """The samples that an epoch visits where every class comes equally often, in random order.

    Args:
        classes: the class of each sample, int64 ``(samples,)``.
        balance: ``undersample``: of every class as many as the rarest has, others each epoch;
            ``oversample``: as many as the most frequent has, each sample about equally often;
            ``resample``: as many samples as there are, drawn with replacement.
        seed: another seed, other samples.
        epoch: another epoch, other samples.
    """
    generator = seeded_generator("balance", seed, epoch)
    members = [(classes == label).nonzero().squeeze(1) for label in classes.unique().tolist()]
    if balance == "resample":
        drawn = torch.randint(len(members), (len(classes),), generator=generator)
        counts = torch.bincount(drawn, minlength=len(members)).tolist()
        parts = [
            own[torch.randint(len(own), (count,), generator=generator)]
            for own, count in zip(members, counts, strict=True)
        ]
    else:
        size = (min if balance == "undersample" else max)(map(len, members))
        parts = []
        for own in members:
            whole, rest = divmod(size, len(own))
            more = own[torch.randperm(len(own), generator=generator)[:rest]]
            parts.append(torch.cat([own.repeat(whole), more]))
    found = torch.cat(parts)
    return found[torch.randperm(len(found), generator=generator)]


def evaluation_order(num_samples: int) -> Tensor:
    """The same permutation each time, for a split that is sorted by class.

    The first batches of a sorted split are of one class: what `limit_eval_batches` takes of it, or
    what a batch normalisation in training mode sees, would say little.
    """
    return torch.randperm(num_samples, generator=seeded_generator("evaluation order"))
