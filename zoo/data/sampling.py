"""Randomness that can be named: orders, seeds and splits as pure functions of a few numbers.

Nothing here reads or advances a global random state, so the same arguments give the same result in
any process, on any device and after any number of other draws.
"""

import hashlib
from collections.abc import Sequence

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


def split_indices(
    labels_or_n: int | Sequence[int] | Tensor,
    fractions: Sequence[float],
    *,
    seed: int = 0,
    stratify: bool = True,
) -> list[Tensor]:
    """Divides samples at random into disjoint parts that together hold every sample.

    The sizes of the parts are exact (rounded cumulative fractions). With ``stratify``, each class
    is spread evenly over a common line before the line is cut, so every part holds each class in
    proportion, up to one sample at either cut.

    Args:
        labels_or_n: the label of each sample; or the number of samples, where there are no classes.
        fractions: the share of each part; they add up to 1.
        seed: another seed, another split.
        stratify: keep the classes in proportion; has no effect without labels.

    Returns:
        For each fraction the ascending indices of its samples, int64.
    """
    if any(fraction < 0 for fraction in fractions) or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            f"fractions must not be negative and must add up to 1, not {list(fractions)}"
        )
    labels = None if isinstance(labels_or_n, int) else torch.as_tensor(labels_or_n)
    num_samples = labels_or_n if isinstance(labels_or_n, int) else len(labels_or_n)
    order = torch.randperm(num_samples, generator=seeded_generator("split", seed))
    if labels is not None and stratify:
        shuffled = labels[order]
        position = torch.empty(num_samples, dtype=torch.float64)
        for label in shuffled.unique():
            members = (shuffled == label).nonzero().squeeze(1)
            position[members] = (torch.arange(len(members)) + 0.5).double() / len(members)
        order = order[position.argsort(stable=True)]
    cuts = [round(num_samples * sum(fractions[:i])) for i in range(1, len(fractions))]
    return [part.sort().values for part in order.tensor_split(cuts)]
