import math

import pytest
import torch
from sklearn.model_selection import GroupKFold, StratifiedKFold

from zoo.data.download import DataError
from zoo.data.splits import (
    SHARES,
    check_folds,
    cross_validation,
    divide,
    divide_or_fold,
    hold_out,
    resampled,
    split_indices,
)


@pytest.mark.parametrize("stratify", [True, False])
def test_split_parts_are_disjoint_and_hold_everything_in_the_asked_sizes(stratify):
    labels = torch.arange(103) % 7
    parts = split_indices(labels, (0.7, 0.15, 0.15), seed=3, stratify=stratify)
    assert torch.cat(parts).sort().values.tolist() == list(range(103))
    assert [len(part) for part in parts] == [72, 16, 15]


def test_stratified_split_holds_each_class_in_proportion():
    labels = torch.cat((torch.zeros(700), torch.ones(250), torch.full((50,), 2.0))).long()
    parts = split_indices(labels, (0.6, 0.2, 0.2), seed=1)
    for part, fraction in zip(parts, (0.6, 0.2, 0.2), strict=True):
        counts = labels[part].bincount(minlength=3)
        torch.testing.assert_close(
            counts.float(), torch.tensor([700.0, 250.0, 50.0]) * fraction, atol=2, rtol=0
        )


def test_split_of_a_number_needs_no_labels_and_depends_on_the_seed_alone():
    first = split_indices(40, (0.5, 0.5), seed=0)
    assert all(
        torch.equal(a, b) for a, b in zip(first, split_indices(40, (0.5, 0.5), seed=0), strict=True)
    )
    assert not torch.equal(first[0], split_indices(40, (0.5, 0.5), seed=1)[0])


def test_fractions_that_do_not_add_up_are_refused():
    with pytest.raises(ValueError, match=r"fractions must .* add up to 1, not \[0.5, 0.2\]"):
        split_indices(10, (0.5, 0.2))


def test_a_share_that_leaves_nothing_is_refused():
    assert {k: len(v) for k, v in divide(20, {"val": 0.1, "test": 0.25}, seed=0).items()} == {
        "train": 13,
        "val": 2,
        "test": 5,
    }
    with pytest.raises(DataError, match=r"here holds too few samples \(3\) to set .* for val"):
        divide(3, {"val": 0.1}, seed=0, source="here")


def test_held_out_samples_are_as_many_as_asked_for():
    parts = hold_out(torch.arange(100) % 5, 7, seed=0)
    assert [len(part) for part in parts.values()] == [93, 7]
    with pytest.raises(ValueError, match="val_size must be less than the 100 training images"):
        hold_out(torch.arange(100) % 5, 100, seed=0)


@pytest.mark.parametrize("labelled", [True, False])
def test_folds_are_disjoint_complete_and_in_proportion(labelled):
    labels = (torch.arange(103) % 4).clamp(max=1)
    given = labels if labelled else 103
    found = [
        cross_validation(given, fold=fold, num_folds=10, val_fraction=0.1, seed=5)
        for fold in range(10)
    ]
    assert torch.cat([parts["test"] for parts in found]).sort().values.tolist() == list(range(103))
    for parts in found:
        assert torch.cat(list(parts.values())).sort().values.tolist() == list(range(103))
        assert len(parts["val"]) == round(0.1 * (103 - len(parts["test"])))
        if labelled:
            shares = [labels[part].float().mean() for part in parts.values()]
            assert all(abs(share - 0.75) < 0.07 for share in shares)


def test_folds_depend_on_the_seed_alone():
    options = {"fold": 1, "num_folds": 5, "val_fraction": 0.2}
    first, again, other = (cross_validation(40, seed=s, **options) for s in (1, 1, 2))
    for split in first:
        assert torch.equal(first[split], again[split])
        assert not torch.equal(first[split], other[split])


def test_folds_that_do_not_exist_are_refused():
    for fold in (-1, 3):
        with pytest.raises(
            ValueError, match=rf"fold must be from 0 to 2 \(num_folds\), not {fold}"
        ):
            check_folds(fold, 3)
    with pytest.raises(ValueError, match="num_folds must be at least 2, not 1"):
        check_folds(0, 1)
    with pytest.raises(DataError, match="mine holds 4 samples, too few for 5 folds"):
        cross_validation(4, fold=0, num_folds=5, val_fraction=0.1, seed=0, source="mine")


def all_folds(given, num_folds, **options):
    options = {"val_fraction": 0.2, "seed": 1} | options
    return [
        cross_validation(given, fold=fold, num_folds=num_folds, **options)["test"]
        for fold in range(num_folds)
    ]


@pytest.mark.parametrize("seed", range(12))
def test_folds_have_the_class_counts_of_scikit_learns(seed):
    generator = torch.Generator().manual_seed(seed)
    count, classes, folds = (
        int(torch.randint(*bounds, (), generator=generator))
        for bounds in ((60, 300), (2, 8), (3, 11))
    )
    labels = torch.cat([torch.randint(classes, (count,), generator=generator), torch.zeros(11)])
    labels = labels.long()
    theirs = StratifiedKFold(folds).split(labels, labels)
    expected = [labels[torch.from_numpy(test)].bincount(minlength=classes) for _, test in theirs]
    found = all_folds(labels, folds, seed=seed)
    assert torch.cat(found).sort().values.tolist() == list(range(len(labels)))
    ours = [labels[part].bincount(minlength=classes) for part in found]
    for one in range(classes):  # which fold has one more is another draw
        assert sorted(c[one].item() for c in ours) == sorted(c[one].item() for c in expected)
    sizes = [len(part) for part in found]
    assert max(sizes) - min(sizes) <= 1


def test_as_many_folds_as_samples_leave_one_out():
    assert sorted(part.item() for part in all_folds(37, 37)) == list(range(37))


def test_no_group_is_in_two_folds_or_on_both_sides_of_val():
    groups = torch.randint(17, (90,), generator=torch.Generator().manual_seed(0))
    found = all_folds(90, 5, groups=groups)
    assert torch.cat(found).sort().values.tolist() == list(range(90))
    members = [set(groups[part].tolist()) for part in found]
    assert sum(map(len, members)) == len(set().union(*members)) == 17
    theirs = GroupKFold(5).split(groups, groups, groups.numpy())
    assert sorted(map(len, found)) == sorted(len(test) for _, test in theirs)
    options = {"num_folds": 5, "val_fraction": 0.2, "seed": 1, "groups": groups}
    parts = cross_validation(90, fold=2, **options)
    assert torch.cat(list(parts.values())).sort().values.tolist() == list(range(90))
    members = [set(groups[part].tolist()) for part in parts.values()]
    assert sum(map(len, members)) == 17 and all(members)
    with pytest.raises(DataError, match="mine holds 2 groups, too few for 5 folds"):
        cross_validation(90, fold=0, **options | {"groups": groups % 2, "source": "mine"})


def test_groups_are_divided_near_the_shares_or_refused():
    groups = torch.arange(200) // 5
    parts = divide(200, {"val": 0.15, "test": 0.15}, seed=0, groups=groups)
    assert {split: len(part) for split, part in parts.items()} == {
        "train": 140,
        "val": 30,
        "test": 30,
    }
    other = divide(200, {"val": 0.15, "test": 0.15}, seed=1, groups=groups)
    assert not torch.equal(parts["test"], other["test"])
    with pytest.raises(DataError, match=r"too few groups \(2\) to set some aside for val"):
        divide(200, {"val": 0.15, "test": 0.15}, seed=0, groups=groups // 20)


def test_without_a_fold_the_shares_divide():
    options = {"num_folds": 4, "seed": 3}
    plain = divide_or_fold(80, fold=None, **options)
    assert all(torch.equal(plain[s], part) for s, part in divide(80, SHARES, seed=3).items())
    folded = divide_or_fold(80, fold=1, **options)
    assert {split: len(part) for split, part in folded.items()} == {
        "train": 51,
        "val": 9,
        "test": 20,
    }


def test_a_bootstrap_sample_holds_about_63_of_100_samples_and_is_its_seeds():
    index = torch.arange(10_000) + 5
    drawn = resampled(index, 0)
    assert len(drawn) == len(index) and set(drawn.tolist()) <= set(index.tolist())
    assert len(drawn.unique()) / len(index) == pytest.approx(1 - math.exp(-1), abs=0.01)
    assert torch.equal(drawn, resampled(index, 0)) and not torch.equal(drawn, resampled(index, 1))
    assert resampled(index, None) is index


def test_leaving_one_out_of_ridge_regression_is_its_closed_form():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    y = x.sum(1) + torch.randn(20, generator=generator, dtype=torch.float64)
    design = torch.cat([x, torch.ones(20, 1, dtype=torch.float64)], 1)
    penalty = torch.diag(torch.tensor([2.0, 2.0, 2.0, 0.0], dtype=torch.float64))  # not the bias

    def fitted(rows):
        a = design[rows]
        return torch.linalg.solve(a.mT @ a + penalty, a.mT @ y[rows])

    everything = torch.arange(20)
    hat = design @ torch.linalg.solve(design.mT @ design + penalty, design.mT)
    expected = (y - design @ fitted(everything)) / (1 - hat.diagonal())  # e / (1 - h)
    for fold in range(20):
        parts = cross_validation(20, fold=fold, num_folds=20, val_fraction=0.1, seed=0)
        (left_out,) = parts["test"]
        rest = torch.cat([parts["train"], parts["val"]])
        error = y[left_out] - design[left_out] @ fitted(rest)
        torch.testing.assert_close(error, expected[left_out])
