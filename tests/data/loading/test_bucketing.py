import itertools

import pytest
import torch

from zoo.data.loading.bucketing import SPREAD, BucketLoader, Ragged
from zoo.data.sampling import seeded_generator
from zoo.data.sequences.pairs import PairBatch, pair_loader

NUM_SAMPLES = 997


def columns(n=NUM_SAMPLES, seed=0):
    """Two columns of sequences whose values say which sample they are of, never 0."""
    generator = seeded_generator("test", seed)
    first = torch.randint(1, 40, (n,), generator=generator)
    second = (first + torch.randint(-4, 5, (n,), generator=generator)).clamp(min=1)
    return [[torch.full((k,), i + 1) for i, k in enumerate(c.tolist())] for c in (first, second)]


def loader(n=NUM_SAMPLES, **settings):
    settings = {"batch_size": 16, "shuffle": True} | settings
    return BucketLoader(columns(n), lambda *parts: parts, **settings)


SIZES = [
    {"batch_size": 16},
    {"batch_size": 1},
    {"batch_size": 5000},
    {"batch_size": None, "tokens_per_batch": 300},
    {"batch_size": None, "tokens_per_batch": 44},
]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_sample_is_there_once_and_whole(sizes, shuffle):
    source = columns()
    this = loader(shuffle=shuffle, **sizes)
    seen = []
    for number, (padded, lengths, rows) in enumerate(this.batches(3)):
        assert rows == this.indices(3, number)
        seen += rows
        for column, values, sizes_ in zip(source, padded, lengths, strict=True):
            assert values.shape == (len(rows), max(sizes_))
            for row, value, length in zip(rows, values, sizes_.tolist(), strict=True):
                assert torch.equal(value[:length], column[row]) and not value[length:].any()
    assert number + 1 == len(this)
    assert sorted(seen) == list(range(NUM_SAMPLES)) and this.num_samples == NUM_SAMPLES


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_epoch_has_the_same_number_of_batches_and_of_each_size(sizes):
    this = loader(**sizes)
    found = [sorted(len(rows) for _, _, rows in this.batches(epoch)) for epoch in range(4)]
    assert all(sizes == found[0] for sizes in found) and len(found[0]) == len(this)


@pytest.mark.parametrize("budget", [44, 100, 300, 2000])
@pytest.mark.parametrize("shuffle", [True, False])
def test_no_batch_is_above_the_budget_and_few_are_far_below(budget, shuffle):
    this = loader(batch_size=None, tokens_per_batch=budget, shuffle=shuffle)
    sizes = [max(p.numel() for p in padded) for padded, _, _ in this.batches(1)]
    assert max(sizes) <= budget
    real = sum(len(sequence) for sequence in columns()[0])
    assert len(sizes) <= 1.5 * real / budget + 20


def test_fixed_batches_are_all_full_but_one():
    sizes = sorted(len(rows) for _, _, rows in loader(batch_size=16).batches(0))
    assert sizes == [NUM_SAMPLES % 16] + [16] * (NUM_SAMPLES // 16)


def test_little_of_a_batch_is_padding():
    def share(this):
        batches = list(this.batches(0))
        padded = sum(p.numel() for values, _, _ in batches for p in values)
        return 1 - sum(int(n.sum()) for _, lengths, _ in batches for n in lengths) / padded

    assert share(loader(n=5000)) < 0.12
    assert share(loader(n=5000, batch_size=5000)) > 0.4


def test_sequences_of_a_batch_are_of_similar_length():
    for _, lengths, _ in loader(n=5000, batch_size=8).batches(2):
        longest = torch.stack(lengths).amax(0)
        assert longest.min() >= (1 - SPREAD) * longest.max() - 1


def test_order_is_a_function_of_seed_and_epoch_alone():
    def order(this, epoch):
        return [rows for _, _, rows in this.batches(epoch)]

    this = loader(seed=1)
    first = order(this, 5)
    order(this, 2)
    torch.rand(3)
    assert order(this, 5) == first == order(loader(seed=1), 5)
    assert order(this, 6) != first != order(loader(seed=2), 5)


def test_samples_meet_others_in_every_epoch():
    this = loader(n=5000)
    together = [
        {frozenset(pair) for _, _, rows in this.batches(epoch) for pair in itertools.pairwise(rows)}
        for epoch in range(2)
    ]
    assert len(together[0] & together[1]) < 0.1 * len(together[0])


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("start", [0, 1, 30, 62, 63, 100])
def test_starting_at_any_batch_gives_the_batches_of_the_whole_epoch(start, shuffle):
    this = loader(shuffle=shuffle)
    whole, rest = list(this.batches(4)), list(loader(shuffle=shuffle).batches(4, start))
    assert [rows for _, _, rows in rest] == [rows for _, _, rows in whole[start:]]
    for a, b in zip(rest, whole[start:], strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a[0], b[0], strict=True))


def test_evaluation_is_the_same_each_time_and_its_beginning_is_a_fair_sample():
    this = loader(n=5000, shuffle=False)
    assert [r for _, _, r in this.batches(0)] == [r for _, _, r in this.batches(7)]
    lengths = [int(lengths[0].max()) for _, lengths, _ in this.batches(0)]
    mean = sum(lengths) / len(lengths)
    assert abs(sum(lengths[:60]) / 60 - mean) < 0.25 * mean


def test_sequences_of_vectors_are_padded_too():
    sequences = [torch.rand(k, 3) for k in (2, 5, 1)]
    ragged = Ragged(sequences)
    padded = ragged.padded(torch.tensor([2, 1]), 5)
    assert padded.shape == (2, 5, 3)
    assert torch.equal(padded[1], sequences[1]) and torch.equal(padded[0, 0], sequences[2][0])
    assert not padded[0, 1:].any()


def test_a_sample_above_the_budget_is_refused_in_training_and_alone_in_evaluation():
    sequences = [torch.ones(k) for k in (3, 9, 2, 2)]
    settings = {"batch_size": None, "tokens_per_batch": 6}
    with pytest.raises(ValueError, match=r"tokens_per_batch must be at least 9, the longest .* 6"):
        BucketLoader([sequences], lambda *parts: parts, shuffle=True, **settings)
    batches = BucketLoader([sequences], lambda *parts: parts, **settings).batches(0)
    assert sorted(sorted(rows) for _, _, rows in batches) == [[0, 2], [1], [3]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"batch_size": None}, "batch_size and tokens_per_batch exclude each other.* None and No"),
        ({"tokens_per_batch": 9}, "batch_size and tokens_per_batch exclude each other.* 16 and 9"),
        ({"batch_size": None, "tokens_per_batch": 0}, "tokens_per_batch must be at least 1, not 0"),
        ({"n": 0}, r"columns must have one length greater than 0, not \[0, 0\]"),
    ],
)
def test_nonsense_is_refused_with_the_value(settings, message):
    with pytest.raises(ValueError, match=message):
        loader(**settings)


def test_columns_that_do_not_fit_together_are_refused():
    one, two = columns(5), columns(6)
    with pytest.raises(ValueError, match=r"not \[5, 6\]"):
        BucketLoader([one[0], two[0]], lambda *parts: parts, batch_size=2)
    one[1][3] = torch.empty(0, dtype=torch.int64)
    with pytest.raises(ValueError, match="no empty sequence, as sample 3 has"):
        BucketLoader(one, lambda *parts: parts, batch_size=2)


def test_pairs_begin_and_end_as_the_models_expect():
    this = pair_loader([[5, 6], [7]], [[8], [9, 10, 11]], ["a", "b c d"], batch_size=2)
    (batch,) = this.batches(0)
    assert isinstance(batch, PairBatch)
    rows = this.indices(0, 0)
    source = {0: [5, 6, 3], 1: [7, 3, 0]}
    target = {0: [2, 8, 3, 0, 0], 1: [2, 9, 10, 11, 3]}
    assert batch.source.tolist() == [source[row] for row in rows]
    assert batch.target.tolist() == [target[row] for row in rows]
    assert batch.source_lengths.tolist() == [[3, 2][row] for row in rows]
    assert batch.target_lengths.tolist() == [[3, 5][row] for row in rows]
    assert batch.references == [["a", "b c d"][row] for row in rows]
    assert next(pair_loader([[5]], [[6]], batch_size=1).batches(0)).references == []


def test_a_side_without_tokens_is_a_pair_all_the_same():
    (batch,) = pair_loader([[]], [[]], batch_size=1).batches(0)
    assert batch.source.tolist() == [[3]] and batch.target.tolist() == [[2, 3]]


@pytest.mark.gpu
def test_values_are_on_the_device_and_lengths_on_the_cpu():
    for shuffle in (True, False):
        there, here = (
            list(
                pair_loader(
                    [[5], [6, 7]], [[8], [9]], batch_size=2, shuffle=shuffle, device=d
                ).batches(1)
            )
            for d in ("cuda", "cpu")
        )
        for a, b in zip(there, here, strict=True):
            assert a.source.is_cuda and a.target.is_cuda
            assert not a.source_lengths.is_cuda and not a.target_lengths.is_cuda
            assert torch.equal(a.source.cpu(), b.source)
