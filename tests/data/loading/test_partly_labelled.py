import pytest
import torch

from zoo.data.images.digits import Digits
from zoo.data.loading.partly_labelled import PartlyLabelled


def loader(labelled=10, batch_size=4, **options):
    inputs = torch.arange(60.0).unsqueeze(1)
    labels = torch.arange(60) % 5
    return PartlyLabelled(
        (inputs, labels), labelled, split_seed=0, batch_size=batch_size, **options
    )


def test_labels_are_kept_in_proportion_and_the_others_are_all_the_rest():
    made = loader()
    batches = [batch for epoch in range(4) for batch in made.batches(epoch)]
    inputs, labels = (torch.cat(parts) for parts in list(zip(*batches, strict=True))[:2])
    labelled = dict(zip(inputs[:, 0].int().tolist(), labels.tolist(), strict=True))
    others = {int(x) for *_, inputs in batches for x in inputs}
    assert len(labelled) == 10 and len(others) == 50
    assert others | set(labelled) == set(range(60)) and not others & set(labelled)
    assert torch.tensor(list(labelled.values())).bincount().tolist() == [2] * 5
    assert all(y == x % 5 for x, y in labelled.items())
    assert {tuple(map(len, batch)) for batch in batches} == {(4, 4, 4)}


def test_starting_late_gives_the_rest_and_indices_are_those_of_the_batches():
    made = loader()
    inputs = torch.cat([made.labelled._tensors[0], made.unlabelled._tensors[0]])
    for epoch in (0, 3):
        whole = list(made.batches(epoch))
        assert len(whole) == len(made) == 12
        for start in (1, 2, 7, 11):
            rest = list(made.batches(epoch, start))
            assert len(rest) == 12 - start
            for ours, theirs in zip(rest, whole[start:], strict=True):
                assert all(map(torch.equal, ours, theirs))
        for number, batch in enumerate(whole):
            expected = inputs[made.indices(epoch, number)]
            assert torch.equal(torch.cat([batch[0], batch[2]]), expected)


def test_parts_of_a_world_are_the_batch():
    whole, parts = loader(seed=3), [loader(seed=3, part=(rank, 2)) for rank in (0, 1)]
    halves = zip(*(part.batches(1) for part in parts), strict=True)
    for batch, pair in zip(whole.batches(1), halves, strict=True):
        for tensor, *both in zip(batch, *pair, strict=True):
            assert torch.equal(tensor, torch.cat(both))


@pytest.mark.parametrize("labelled", [0, 60])
def test_numbers_that_leave_nothing_are_refused(labelled):
    with pytest.raises(ValueError, match=f"labelled must be from 1 to 59, .* not {labelled}"):
        loader(labelled)


def test_digits_keep_val_and_test_whole():
    plain, few = Digits(image_size=8), Digits(image_size=8, labelled=100)
    for module in (plain, few):
        module.setup()
    for split in ("val", "test"):
        for ours, theirs in zip(few.batches(split, 0), plain.batches(split, 0), strict=True):
            assert all(map(torch.equal, ours, theirs))
    train = few.loaders["train"]
    assert train.num_samples == 1258
    counts = train.labelled._tensors[1].bincount(minlength=10)
    assert counts.sum() == 100 and counts.min() >= 9
