"""Which samples are for training, which for val and which for the test.

Parts of the same samples are drawn at random from a seed alone, with the classes in proportion, so
that they are the same in every run.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from zoo.data.download import DataError
from zoo.data.sampling import mix_seed, seeded_generator

SPLITS = ("train", "val", "test")
SHARES = {"val": 0.15, "test": 0.15}
"""Shares of val and test in a data set that comes without splits; 70 % is left for training."""


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


def divide(
    labels_or_n: int | Sequence[int] | Tensor,
    shares: Mapping[str, float],
    *,
    seed: int,
    source: object = "the data set",
) -> dict[str, Tensor]:
    """Takes the shares of other splits away from the training samples.

    Args:
        labels_or_n: the label of each sample; or the number of samples, where there are no classes.
        shares: split to its share of all samples, ``val`` to 0.1 for example.
        seed: another seed, another division.
        source: where the samples are from, for the message.

    Returns:
        The indices of the samples of ``train`` and of each of ``shares``.

    Raises:
        DataError: nothing is left for one of them.
    """
    fractions = (1 - sum(shares.values()), *shares.values())
    parts = split_indices(labels_or_n, fractions, seed=seed)
    found = dict(zip(("train", *shares), parts, strict=True))
    for split, part in found.items():
        if not len(part):
            count = labels_or_n if isinstance(labels_or_n, int) else len(labels_or_n)
            raise DataError(
                f"{source} holds too few samples ({count}) to set some aside for {split}: add "
                f"some, or raise the share of {split}"
            )
    return found


def hold_out(labels: Tensor, val_size: int, *, seed: int) -> dict[str, Tensor]:
    """Sets a number of the published training samples aside for val, stratified.

    Raises:
        ValueError: nothing would be left for training.
    """
    if val_size >= len(labels):
        raise ValueError(
            f"val_size must be less than the {len(labels)} training images, not {val_size}"
        )
    return divide(labels, {"val": val_size / len(labels)}, seed=seed)


def cross_validation(
    labels_or_n: int | Sequence[int] | Tensor,
    *,
    fold: int,
    num_folds: int,
    val_fraction: float,
    seed: int,
    source: object = "the data set",
) -> dict[str, Tensor]:
    """One fold of a k-fold cross-validation: the fold is the test, the rest is train and val.

    Val is drawn from the rest, so that choosing a model by it never looks at the test (Errica et
    al., 2020, https://arxiv.org/abs/1912.09893, who call this a fair comparison). The folds are a
    function of the samples and the seed alone: whatever is trained, all have the same.

    Args:
        labels_or_n: the label of each sample; or the number of samples, where there are no classes.
        fold: which one is the test, from 0 on.
        num_folds: all together are the data set, each in proportion to the classes.
        val_fraction: share of the rest that is val, in proportion to the classes too.
        seed: another seed, other folds.
        source: where the samples are from, for the message.

    Returns:
        The ascending indices of the samples of ``train``, ``val`` and ``test``.

    Raises:
        DataError: there are too few samples.
    """
    count = labels_or_n if isinstance(labels_or_n, int) else len(labels_or_n)
    if count < num_folds:
        raise DataError(
            f"{source} holds {count} samples, too few for {num_folds} folds: lower num_folds"
        )
    folds = split_indices(labels_or_n, [1 / num_folds] * num_folds, seed=seed)
    rest = torch.cat([part for number, part in enumerate(folds) if number != fold]).sort().values
    of_rest = len(rest) if isinstance(labels_or_n, int) else torch.as_tensor(labels_or_n)[rest]
    inner_seed = mix_seed("inner", seed, fold)
    inner = divide(of_rest, {"val": val_fraction}, seed=inner_seed, source=source)
    return {split: rest[part] for split, part in inner.items()} | {"test": folds[fold]}


def check_folds(fold: int, num_folds: int) -> None:
    """Refuses less than two folds, and a fold that is none of them."""
    if num_folds < 2:
        raise ValueError(f"num_folds must be at least 2, not {num_folds}")
    if not 0 <= fold < num_folds:
        raise ValueError(f"fold must be from 0 to {num_folds - 1} (num_folds), not {fold}")


def check_fractions(val_fraction: float, test_fraction: float = 0.0) -> None:
    """Refuses shares of val and test that leave nothing for one of them or for training."""
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction must be between 0 and 1, not {val_fraction}")
    if not 0 <= test_fraction < 1 - val_fraction:
        raise ValueError(
            f"test_fraction must be in [0, {1 - val_fraction:g}), so that something is left "
            f"for training, not {test_fraction}"
        )
