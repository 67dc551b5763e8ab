import pytest
import torch

from zoo.data.download import DataError
from zoo.data.splits import (
    check_folds,
    cross_validation,
    divide,
    hold_out,
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
