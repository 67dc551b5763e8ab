import itertools

import pytest
import torch

from zoo.data.loading.bptt import TextBatch
from zoo.data.loading.windows import WindowLoader


def windows(n=100, **changes):
    settings = {"batch_size": 3, "sequence_length": 7}
    return WindowLoader(torch.arange(n), **(settings | changes))


@pytest.mark.parametrize("n", [8, 9, 13, 14, 15, 16, 50, 99, 100])
@pytest.mark.parametrize("time", [1, 4, 7])
def test_training_visits_windows_that_do_not_overlap(n, time):
    loader = windows(n, sequence_length=time, shuffle=True)
    for epoch in range(20):
        batches = list(loader.batches(epoch))
        assert len(batches) == len(loader)
        assert all(isinstance(batch, TextBatch) and batch.is_start for batch in batches)
        inputs = torch.cat([batch.inputs for batch in batches])
        assert inputs.shape == (loader.num_samples, time)
        assert torch.equal(torch.cat([batch.targets for batch in batches]), inputs + 1)
        assert inputs.max() < n - 1
        seen = inputs.flatten()
        assert seen.unique().numel() == seen.numel() > n - 1 - 2 * time
        assert seen.max() - seen.min() == seen.numel() - 1  # without gaps


def test_epochs_begin_at_every_place_and_go_in_other_orders():
    loader = windows(shuffle=True)
    firsts = [next(loader.batches(epoch)).inputs[:, 0].tolist() for epoch in range(40)]
    assert {row[0] % 7 for row in firsts} == set(range(7))
    assert len(set(map(tuple, firsts))) == 40
    assert any(row != sorted(row) for row in firsts)
    # A text of exactly one window and a little more varies as much as it can.
    short = windows(10, shuffle=True)
    assert {next(short.batches(epoch)).inputs[0, 0].item() for epoch in range(40)} == {0, 1, 2}


def test_windows_are_a_function_of_seed_and_epoch_alone():
    def epoch(seed, number):
        batches = windows(shuffle=True, seed=seed).batches(number)
        return torch.cat([batch.inputs for batch in batches]).tolist()

    torch.manual_seed(1)
    first = epoch(0, 0)
    torch.manual_seed(2)
    assert epoch(0, 0) == first
    assert len({str(epoch(s, e)) for s in range(3) for e in range(3)}) == 9


@pytest.mark.parametrize("n", [2, 3, 7, 8, 9, 22, 23, 29, 100])
@pytest.mark.parametrize("batch_size", [1, 3, 50])
@pytest.mark.parametrize("time", [1, 7, 50])
def test_evaluation_targets_every_token_but_the_first_once_and_in_order(n, batch_size, time):
    loader = windows(n, batch_size=batch_size, sequence_length=time)
    batches = list(loader.batches(0))
    assert len(batches) == len(loader)
    targets = torch.cat([batch.targets.flatten() for batch in batches])
    assert targets.tolist() == list(range(1, n))
    for batch in batches:
        assert torch.equal(batch.inputs, batch.targets - 1) and batch.is_start
    *whole, last = batches
    assert all(batch.inputs.shape[1] == time for batch in whole)
    assert last.inputs.shape[1] == time or last.inputs.shape == (1, (n - 1) % time)
    assert loader.num_samples == sum(len(batch.inputs) for batch in batches)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("n", [99, 100, 101])
def test_starting_at_any_batch_gives_the_batches_of_the_whole_epoch(n, shuffle):
    loader = windows(n, shuffle=shuffle)
    whole = list(loader.batches(3))
    for start in range(len(whole) + 2):
        for a, b in zip(loader.batches(3, start), whole[start:], strict=True):
            assert torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)
    for number, batch in enumerate(whole):
        assert loader.indices(3, number) == batch.inputs[:, 0].tolist()


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32])
@pytest.mark.parametrize("shuffle", [True, False])
def test_narrow_tokens_of_a_file_give_the_batches_of_those_in_memory(shuffle, dtype):
    tokens = torch.randint(60_000, (103,))
    settings = {"batch_size": 3, "sequence_length": 4, "shuffle": shuffle}
    there = WindowLoader(tokens, **settings)
    here = WindowLoader(tokens.to(dtype), **settings)
    for epoch, start in itertools.product(range(3), (0, 2)):
        for a, b in zip(here.batches(epoch, start), there.batches(epoch, start), strict=True):
            assert a.inputs.dtype == a.targets.dtype == torch.int64
            assert a.inputs.is_contiguous() and a.targets.is_contiguous()
            assert torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)


@pytest.mark.parametrize(
    ("n", "shuffle", "message"),
    [
        (7, True, "sequence_length must be at most 6, the tokens of the text but one, not 7"),
        (1, False, "sequence_length must be at most 0, the tokens of the text but one, not 7"),
        (0, False, "sequence_length must be at most 0"),
    ],
)
def test_a_text_too_short_for_a_window_is_refused_with_the_numbers(n, shuffle, message):
    with pytest.raises(ValueError, match=message):
        windows(n, shuffle=shuffle)
