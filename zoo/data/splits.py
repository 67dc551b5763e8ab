"""Which samples are for training, which for val and which for the test.

Parts of the same samples are drawn at random from a seed alone, with the classes in proportion, so
that they are the same in every run. Samples that belong together (of one patient, say) stay
together where their groups are given.
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


def split_groups(
    groups: Sequence[int] | Tensor, fractions: Sequence[float], *, seed: int = 0
) -> list[Tensor]:
    """Divides samples into disjoint parts none of which shares a group with another.

    Groups go, the largest first, to the part that lacks most of its share, so that the sizes come
    near the fractions. Of equal fractions that is what scikit-learn's ``GroupKFold`` does.

    Args:
        groups: the group of each sample.
        fractions: the share of each part; they add up to 1.
        seed: decides among groups of one size.

    Returns:
        For each fraction the ascending indices of its samples, int64.
    """
    _, members, sizes = torch.as_tensor(groups).unique(return_inverse=True, return_counts=True)
    order = torch.randperm(len(sizes), generator=seeded_generator("split", seed))
    order = order[sizes[order].argsort(descending=True, stable=True)]
    lacking = torch.tensor(fractions, dtype=torch.float64) * len(members)
    part_of = torch.empty(len(sizes), dtype=torch.int64)
    for group in order.tolist():
        part = int(lacking.argmax())
        part_of[group] = part
        lacking[part] -= sizes[group]
    return [(part_of[members] == part).nonzero().squeeze(1) for part in range(len(fractions))]


def divide(
    labels_or_n: int | Sequence[int] | Tensor,
    shares: Mapping[str, float],
    *,
    seed: int,
    source: object = "the data set",
    groups: Tensor | None = None,
) -> dict[str, Tensor]:
    """Takes the shares of other splits away from the training samples.

    Args:
        labels_or_n: the label of each sample; or the number of samples, where there are no classes.
        shares: split to its share of all samples, ``val`` to 0.1 for example.
        seed: another seed, another division.
        source: where the samples are from, for the message.
        groups: the group of each sample, none of which is then divided, as near to the shares as
            that allows, whatever the labels.

    Returns:
        The indices of the samples of ``train`` and of each of ``shares``.

    Raises:
        DataError: nothing is left for one of them.
    """
    fractions = (1 - sum(shares.values()), *shares.values())
    if groups is None:
        parts = split_indices(labels_or_n, fractions, seed=seed)
    else:
        parts = split_groups(groups, fractions, seed=seed)
    found = dict(zip(("train", *shares), parts, strict=True))
    for split, part in found.items():
        if not len(part):
            count = labels_or_n if isinstance(labels_or_n, int) else len(labels_or_n)
            what = f"samples ({count})" if groups is None else f"groups ({len(groups.unique())})"
            raise DataError(
                f"{source} holds too few {what} to set some aside for {split}: add some, or raise "
                f"the share of {split}"
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
    groups: Tensor | None = None,
) -> dict[str, Tensor]:
    """One fold of a k-fold cross-validation: the fold is the test, the rest is train and val.

    Val is drawn from the rest, so that choosing a model by it never looks at the test (Errica et
    al., 2020, https://arxiv.org/abs/1912.09893, who call this a fair comparison). The folds are a
    function of the samples and the seed alone: whatever is trained, all have the same.

    Args:
        labels_or_n: the label of each sample; or the number of samples, where there are no classes.
        fold: which one is the test, from 0 on.
        num_folds: all together are the data set, each in proportion to the classes: their counts
            differ by at most one between folds. As many as samples: one is left out at a time.
        val_fraction: share of the rest that is val, in proportion to the classes too.
        seed: another seed, other folds.
        source: where the samples are from, for the message.
        groups: the group of each sample: none is then in two folds, nor in train and val.

    Returns:
        The ascending indices of the samples of ``train``, ``val`` and ``test``.

    Raises:
        DataError: there are too few samples.
    """
    count = labels_or_n if isinstance(labels_or_n, int) else len(labels_or_n)
    units = "samples" if groups is None else "groups"
    if groups is not None:
        count = len(groups.unique())
    if count < num_folds:
        raise DataError(
            f"{source} holds {count} {units}, too few for {num_folds} folds: lower num_folds"
        )
    fractions = [1 / num_folds] * num_folds
    if groups is None:
        folds = _folds(labels_or_n, fractions, seed)
    else:
        folds = split_groups(groups, fractions, seed=seed)
    rest = torch.cat([part for number, part in enumerate(folds) if number != fold]).sort().values
    of_rest = len(rest) if isinstance(labels_or_n, int) else torch.as_tensor(labels_or_n)[rest]
    inner_seed = mix_seed("inner", seed, fold)
    of_groups = None if groups is None else groups[rest]
    inner = divide(of_rest, {"val": val_fraction}, seed=inner_seed, source=source, groups=of_groups)
    return {split: rest[part] for split, part in inner.items()} | {"test": folds[fold]}


def _folds(
    labels_or_n: int | Sequence[int] | Tensor, fractions: list[float], seed: int
) -> list[Tensor]:
    """Parts of equal shares between which the counts of a class differ by at most one.

    Two cuts through the common line of :func:`split_indices` may leave a class two samples more in
    one part than in another. The samples are then dealt out class by class, like cards.
    """
    parts = split_indices(labels_or_n, fractions, seed=seed)
    if isinstance(labels_or_n, int):
        return parts
    labels = torch.as_tensor(labels_or_n)
    counts = torch.stack([(labels[part].unsqueeze(1) == labels.unique()).sum(0) for part in parts])
    if (counts.amax(0) - counts.amin(0)).max() <= 1:
        return parts
    order = torch.randperm(len(labels), generator=seeded_generator("split", seed))
    order = order[labels[order].argsort(stable=True)]
    return [order[start :: len(fractions)].sort().values for start in range(len(fractions))]


def divide_or_fold(
    labels_or_n: int | Sequence[int] | Tensor,
    shares: Mapping[str, float] = SHARES,
    *,
    fold: int | None,
    num_folds: int,
    seed: int,
    source: object = "the data set",
    groups: Tensor | None = None,
) -> dict[str, Tensor]:
    """The splits of a data set that has none: by shares or, where a fold is asked for, by folds.

    Args:
        labels_or_n: see :func:`divide`.
        shares: split to its share of all samples; of val, where there are folds, outside the test.
        fold: which fold is the test; None: there are no folds.
        num_folds: see :func:`cross_validation`.
        seed: another seed, another division.
        source: where the samples are from, for the message.
        groups: see :func:`divide`.

    Raises:
        DataError: there are too few samples.
    """
    if fold is None:
        return divide(labels_or_n, shares, seed=seed, source=source, groups=groups)
    return cross_validation(
        labels_or_n,
        fold=fold,
        num_folds=num_folds,
        val_fraction=shares["val"],
        seed=seed,
        source=source,
        groups=groups,
    )


def resampled(index: Tensor, bootstrap_seed: int | None) -> Tensor:
    """As many training samples drawn with replacement: the members of a bagged ensemble differ.

    Breiman, 1996, "Bagging predictors", https://doi.org/10.1007/BF00058655. About 63.2 % of many
    samples are drawn at least once.

    Args:
        index: of the samples.
        bootstrap_seed: another seed, another draw; None: all as they are.
    """
    if bootstrap_seed is None:
        return index
    generator = seeded_generator("bootstrap", bootstrap_seed)
    return index[torch.randint(len(index), (len(index),), generator=generator)]


def check_folds(fold: int | None, num_folds: int) -> None:
    """Refuses less than two folds, and a fold that is none of them; None asks for no folds."""
    if num_folds < 2:
        raise ValueError(f"num_folds must be at least 2, not {num_folds}")
    if fold is not None and not 0 <= fold < num_folds:
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
