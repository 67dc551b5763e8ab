import pytest
import torch

from zoo.data.sampling import epoch_order, mix_seed, split_indices


def test_mixed_seed_is_the_same_number_on_every_machine():
    assert mix_seed("order", 3, 7) == 11699795506952650118


def test_neighbouring_seeds_and_epochs_give_different_orders():
    orders = {tuple(epoch_order(20, seed=s, epoch=e).tolist()) for s in range(4) for e in range(4)}
    assert len(orders) == 16


def test_order_visits_every_sample_once():
    assert epoch_order(100, seed=1, epoch=2).sort().values.tolist() == list(range(100))


def test_order_neither_uses_nor_changes_the_global_random_state():
    torch.manual_seed(0)
    before, first = torch.get_rng_state(), epoch_order(50, seed=0, epoch=0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(epoch_order(50, seed=0, epoch=0), first)


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
