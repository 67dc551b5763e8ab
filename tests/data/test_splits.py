import pytest
import torch

from zoo.data.download import DataError
from zoo.data.splits import divide, hold_out, split_indices


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
