"""Every loader gives, in several parts, what it gives in one."""

from itertools import chain

import pytest
import torch

from zoo.data.augmentation.base import HorizontalFlip, RandomCrop
from zoo.data.augmentation.mixing import CutMix, Mixup
from zoo.data.graphs.batches import GraphBatch, GraphLoader
from zoo.data.loading.bptt import ContiguousLoader
from zoo.data.loading.bucketing import BucketLoader
from zoo.data.loading.order import BatchOrder, share
from zoo.data.loading.stream import StreamLoader
from zoo.data.loading.tensor import TensorLoader
from zoo.data.loading.windows import WindowLoader

SIZES = (7, 10, 11, 24)
IMAGES = torch.arange(24.0 * 3 * 4 * 4).view(24, 3, 4, 4) / 7
LABELS = torch.arange(24) % 5
SEQUENCES = [torch.arange(1, 2 + n * 7 % 5) + 10 * n for n in range(24)]


def padded_rows(columns, lengths, rows):
    """A batch of pairs (row, sequence) without padding, of which each part has its own."""
    (values,), (sizes,) = columns, lengths
    return torch.tensor(rows), tuple(v[:n] for v, n in zip(values, sizes.tolist(), strict=True))


def tensors(size, part, **settings):
    return TensorLoader((IMAGES[:size], LABELS[:size]), batch_size=4, part=part, **settings)


def stream(size, part, **settings):
    samples = [(IMAGES[i], LABELS[i]) for i in range(size)]
    return StreamLoader(samples, batch_size=4, part=part, **settings)


def mixed(make, *augment):
    def made(size, part, *, shuffle, **settings):
        changes = augment if shuffle else ()
        return make(size, part, shuffle=shuffle, augment=changes, **settings)

    return made


def whole(size, part, *, shuffle, **settings):
    del shuffle, settings
    return TensorLoader((IMAGES[:size], LABELS[:size]), batch_size=None, part=part)


def buckets(size, part, **settings):
    return BucketLoader([SEQUENCES[:size]], padded_rows, batch_size=4, part=part, **settings)


def budget(size, part, **settings):
    return BucketLoader([SEQUENCES[:size]], padded_rows, tokens_per_batch=9, part=part, **settings)


def windows(size, part, **settings):
    tokens = torch.arange(3 * size + 2)
    return WindowLoader(tokens, batch_size=4, sequence_length=3, part=part, **settings)


def tracks(size, part, **settings):
    return ContiguousLoader(
        torch.arange(9 * size + 3), batch_size=4, sequence_length=3, part=part, **settings
    )


def tracks_of_a_file(size, part, **settings):
    tokens = torch.arange(9 * size + 3, dtype=torch.int16)
    return ContiguousLoader(tokens, batch_size=4, sequence_length=3, part=part, **settings)


LOADERS = {
    "tensor": tensors,
    "cropped": mixed(tensors, RandomCrop(1), HorizontalFlip(), Mixup(5)),
    "mixed": mixed(tensors, CutMix(5)),
    "stream": stream,
    "mixed stream": mixed(stream, HorizontalFlip(), Mixup(5), CutMix(5)),
    "whole": whole,
    "buckets": buckets,
    "budget": budget,
    "windows": windows,
    "tracks": tracks,
    "tracks of a file": tracks_of_a_file,
}
DROPPING = [name for name in LOADERS if "tracks" not in name and name != "whole"]


def rows(batch):
    """A batch as a list of its rows, each a list of what it holds; no rows where it is None."""
    if batch is None:
        return []
    columns = [column for column in batch if not isinstance(column, bool)]
    return [[value.tolist() for value in row] for row in zip(*columns, strict=True)]


def epoch_of(loader, epoch, start=0):
    return [rows(batch) for batch in loader.batches(epoch, start)]


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("name", LOADERS)
def test_the_parts_batches_one_after_the_other_are_those_of_one_process(name, shuffle, size, world):
    make = LOADERS[name]
    alone = make(size, (0, 1), shuffle=shuffle, seed=3)
    parts = [make(size, (rank, world), shuffle=shuffle, seed=3) for rank in range(world)]
    for epoch in (0, 1):
        expected = epoch_of(alone, epoch)
        assert len(expected) == len(alone)
        found = [epoch_of(part, epoch) for part in parts]
        joined = [list(chain(*batches)) for batches in zip(*found, strict=True)]
        assert joined == expected
        for number in range(len(alone)):
            assert all(p.indices(epoch, number) == alone.indices(epoch, number) for p in parts)
        late = len(alone) - 1
        for part, batches in zip(parts, found, strict=True):
            assert epoch_of(part, epoch, late) == batches[late:]
            assert (len(part), part.num_samples) == (len(alone), alone.num_samples)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["tensor", "stream", "whole", "buckets", "budget"])
def test_evaluation_shows_each_sample_once(name, size, world):
    parts = [LOADERS[name](size, (rank, world), shuffle=False) for rank in range(world)]
    seen = [row for part in parts for batch in epoch_of(part, 0) for row in batch]
    assert len(seen) == size
    assert len({str(row) for row in seen}) == size


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", DROPPING)
def test_drop_last_omits_the_smaller_batch_of_every_part(name, size):
    make = LOADERS[name]
    kept = make(size, (0, 1), shuffle=True, drop_last=True)
    parts = [make(size, (rank, 3), shuffle=True, drop_last=True) for rank in range(3)]
    if name != "budget":
        assert all(batch is not None for part in parts for batch in part.batches(0))
        assert {len(batch) for batch in epoch_of(kept, 0)} == {4}
    every = make(size, (0, 1), shuffle=True)
    assert len(every) - len(kept) in (0, 1)
    assert len({len(loader) for loader in (kept, *parts)}) == 1


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_the_nodes_of_all_parts_are_those_of_the_split_and_each_part_has_the_graph(world):
    mask = torch.tensor([True, False, True, True])
    batch = GraphBatch(torch.eye(4), torch.tensor([[0, 1], [1, 0]]), torch.arange(4), mask)
    parts = [GraphLoader(batch, part=(rank, world)) for rank in range(world)]
    found = [graph for part in parts for graph in part.batches(0)]
    assert len(found) == world and found.count(None) == max(0, world - 3)
    masks = torch.stack([graph.mask for graph in found if graph is not None])
    assert torch.equal(masks.sum(0), mask.long())
    assert all(torch.equal(graph.features, batch.features) for graph in found if graph is not None)
    assert all(part.indices(0, 0) == [0, 2, 3] for part in parts)


def test_shares_are_in_order_and_as_equal_as_can_be():
    for size in range(12):
        for world in range(1, 5):
            shares = [range(size)[share(size, (rank, world))] for rank in range(world)]
            assert [row for part in shares for row in part] == list(range(size))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("part", [(1, 1), (-1, 2), (0, 0)])
def test_a_part_that_there_is_not_is_refused(part):
    with pytest.raises(ValueError, match=r"part must be \(rank, world\) with 0 <= rank < world"):
        BatchOrder(10, 4, shuffle=False, seed=0, part=part)


@pytest.mark.parametrize("make", [tensors, stream, buckets, windows, tracks])
def test_training_batches_with_fewer_samples_than_processes_are_refused(make):
    with pytest.raises(ValueError, match="batch_size must be at least 5, a sample for each proc"):
        make(24, (0, 5), shuffle=True)
    make(24, (0, 5), shuffle=False)
