"""Every class equally often: which samples an epoch visits."""

import pytest
import torch

from zoo.data.loading.order import BatchOrder
from zoo.data.loading.tensor import TensorLoader
from zoo.data.sampling import balanced_order

CLASSES = torch.tensor([0] * 10 + [1] * 3 + [2] * 4)


def order(balance, epoch=0, seed=0):
    return balanced_order(CLASSES, balance, seed=seed, epoch=epoch)


def test_undersampling_takes_as_many_as_the_rarest_class_has_each_once():
    found = order("undersample")
    assert CLASSES[found].bincount().tolist() == [3, 3, 3]
    assert len(found.unique()) == 9
    assert set(order("undersample", epoch=1).tolist()) != set(found.tolist())


def test_oversampling_takes_all_samples_about_equally_often():
    found = order("oversample")
    assert CLASSES[found].bincount().tolist() == [10, 10, 10]
    times = found.bincount()
    assert times[:10].tolist() == [1] * 10
    assert set(times[10:13].tolist()) == {3, 4} and set(times[13:].tolist()) == {2, 3}


def test_order_is_random_and_a_function_of_seed_and_epoch():
    for balance in ("undersample", "oversample", "resample"):
        found = order(balance)
        assert torch.equal(found, order(balance))
        assert not torch.equal(found, order(balance, epoch=1))
        assert not torch.equal(found, order(balance, seed=1))
        assert found.tolist() != sorted(found.tolist())


def test_balanced_samples_are_as_good_as_weighted_ones_in_the_mean():
    losses = torch.rand(17, generator=torch.Generator().manual_seed(0))
    weights = (17 / (3 * CLASSES.bincount()))[CLASSES]
    weighted = (weights * losses).sum() / weights.sum()
    drawn = torch.stack([losses[order("resample", epoch=i)].mean() for i in range(2_000)])
    assert drawn.mean().item() == pytest.approx(weighted.item(), abs=0.01)


def test_a_loader_counts_what_it_visits_and_resumes_in_the_middle():
    loader = TensorLoader(
        (torch.arange(17.0).unsqueeze(1), CLASSES), batch_size=4, shuffle=True, balance="oversample"
    )
    assert len(loader) == 8
    batches = list(loader.batches(2))
    assert torch.cat([y for _, y in batches]).bincount().tolist() == [10, 10, 10]
    for all_of_it, rest in zip(batches[3:], loader.batches(2, start=3), strict=True):
        assert torch.equal(all_of_it[0], rest[0])
    assert loader.indices(2, 1) == batches[1][0].flatten().long().tolist()


def test_slices_of_two_processes_are_the_batches_of_one():
    whole, *parts = (
        BatchOrder(
            17, 4, shuffle=True, seed=0, part=part, balance="undersample", classes=CLASSES
        ).chunks(1)
        for part in ((0, 1), (0, 2), (1, 2))
    )
    assert [b.tolist() for b in whole] == [
        [*a.tolist(), *b.tolist()] for a, b in zip(*parts, strict=True)
    ]


def test_what_cannot_be_balanced_is_refused():
    with pytest.raises(ValueError, match="needs a batch_size"):
        TensorLoader(
            (torch.zeros(4, 1), torch.zeros(4).long()), batch_size=None, balance="resample"
        )
    with pytest.raises(ValueError, match="needs one class a sample"):
        TensorLoader(
            (torch.zeros(4, 1), torch.zeros(4)), batch_size=2, shuffle=True, balance="resample"
        )
