import pytest
import torch

from zoo.data.sequences.synthetic import AddingProblem, Parity, TokenPairs

SMALL = {"num_samples": 200, "eval_samples": 50}


def made(kind, *, seed=0, **arguments):
    module = kind(**{**SMALL, **arguments})
    module.setup(seed=seed)
    return module


def sequences(module, split, epoch=0):
    """The sequences of a split without padding, with their targets."""
    return [
        (tuple(row[:length].tolist()), target)
        for batch in module.batches(split, epoch)
        for row, target, length in zip(
            batch.inputs, batch.targets.tolist(), batch.lengths.tolist(), strict=True
        )
    ]


def pairs(module, split, epoch=0):
    return [
        (row[:n].tolist(), other[:m].tolist())
        for batch in module.batches(split, epoch)
        for row, n, other, m in zip(
            batch.source,
            batch.source_lengths.tolist(),
            batch.target,
            batch.target_lengths.tolist(),
            strict=True,
        )
    ]


# ------------------------------------------------------------------------------ adding problem


def adding(module, split, epoch=0):
    return tuple(torch.cat(part) for part in zip(*module.batches(split, epoch), strict=True))


@pytest.mark.parametrize("length", [2, 7, 200])
def test_target_is_the_sum_of_the_two_marked_numbers_one_in_each_half(length):
    module = made(AddingProblem, length=length)
    for split, count in (("train", 200), ("val", 50), ("test", 50)):
        inputs, targets = adding(module, split)
        assert inputs.shape == (count, length, 2) and targets.shape == (count, 1)
        values, marks = inputs.unbind(2)
        assert ((values >= 0) & (values < 1)).all() and set(marks.unique().tolist()) <= {0.0, 1.0}
        half = length // 2
        assert (marks[:, :half].sum(1) == 1).all() and (marks[:, half:].sum(1) == 1).all()
        chosen = values[marks.bool()].view(count, 2)
        torch.testing.assert_close(targets[:, 0], chosen.sum(1))


def test_always_saying_one_has_the_error_one_sixth():
    _, targets = adding(made(AddingProblem, length=10, num_samples=40_000), "train")
    assert (targets - 1).square().mean().item() == pytest.approx(1 / 6, abs=0.005)


def test_adding_problem_depends_on_data_seed_and_its_order_on_seed():
    first, same, order, other = (
        made(AddingProblem, length=10, **arguments)
        for arguments in ({}, {}, {"seed": 1}, {"data_seed": 1})
    )
    assert torch.equal(adding(first, "train")[0], adding(same, "train")[0])
    assert torch.equal(adding(first, "test")[0], adding(order, "test")[0])
    assert not torch.equal(adding(first, "train")[0], adding(order, "train")[0])
    assert not torch.equal(adding(first, "test")[0], adding(other, "test")[0])
    assert not torch.equal(adding(first, "val")[0], adding(first, "test")[0])
    assert first.facts() == {"in_features": 2, "out_features": 1}


# -------------------------------------------------------------------------------------- parity


@pytest.mark.parametrize("every_step", [False, True])
def test_parity_is_whether_the_ones_are_odd(every_step):
    module = made(Parity, every_step=every_step)
    for split in module.splits:
        for bits, target in sequences(module, split):
            assert set(bits) <= {0, 1} and 1 <= len(bits) <= 20
            if every_step:
                assert target[: len(bits)] == [sum(bits[: i + 1]) % 2 for i in range(len(bits))]
                assert set(target[len(bits) :]) <= {-100}
            else:
                assert target == sum(bits) % 2
    assert module.facts() == {"num_classes": 2, "class_names": ["even", "odd"], "vocab_size": 2}


def test_parity_of_all_lengths_is_undecided():
    module = made(Parity, min_length=8, num_samples=4000)
    odd = [target for _, target in sequences(module, "train")]
    assert sum(odd) / len(odd) == pytest.approx(0.5, abs=0.03)
    assert {len(bits) for bits, _ in sequences(module, "train")} == set(range(8, 21))


def test_test_sequences_may_be_longer_than_any_other():
    module = made(Parity, max_length=12, test_length=60)
    assert {len(bits) for bits, _ in sequences(module, "test")} == {60}
    assert max(len(bits) for bits, _ in sequences(module, "val")) == 12
    plain = made(Parity, max_length=12)
    assert sequences(plain, "train") == sequences(module, "train")


# --------------------------------------------------------------------------------------- pairs


@pytest.mark.parametrize(
    ("order", "ordered"),
    [("copy", list), ("reverse", lambda symbols: symbols[::-1]), ("sort", sorted)],
)
def test_target_is_the_source_in_the_stated_order(order, ordered):
    module = made(TokenPairs, order=order, num_symbols=6, min_length=2)
    for split in module.splits:
        for source, target in pairs(module, split):
            *symbols, end = source
            assert end == 3 and set(symbols) <= set(range(4, 10)) and 2 <= len(symbols) <= 12
            assert target == [2, *ordered(symbols), 3]
    assert module.facts() == {"source_vocab_size": 10, "target_vocab_size": 10}
    assert module.vocabularies == {}


def test_padding_of_pairs_is_zero_and_there_are_no_references():
    for batch in made(TokenPairs).batches("train", 0):
        for rows, lengths in (
            (batch.source, batch.source_lengths),
            (batch.target, batch.target_lengths),
        ):
            for row, length in zip(rows, lengths.tolist(), strict=True):
                assert (row[length:] == 0).all() and (row[:length] > 0).all()
        assert batch.references == []


# ---------------------------------------------------------------------------------------- both


@pytest.mark.parametrize("kind", [Parity, TokenPairs])
def test_no_sequence_is_drawn_twice_or_in_two_splits(kind):
    module = made(kind, max_length=9)
    read = sequences if kind is Parity else pairs
    drawn = [[tuple(sequence) for sequence, _ in read(module, split)] for split in module.splits]
    assert [len(part) for part in drawn] == [200, 50, 50]
    assert len(set().union(*drawn)) == 300


@pytest.mark.parametrize("kind", [Parity, TokenPairs])
def test_sequences_depend_on_data_seed_and_their_order_on_seed(kind):
    read = sequences if kind is Parity else pairs
    first, same, order, other = (
        made(kind, **arguments) for arguments in ({}, {}, {"seed": 1}, {"data_seed": 1})
    )
    assert read(first, "train") == read(same, "train")
    assert read(first, "train") != read(first, "train", 1)
    assert read(first, "test") == read(order, "test")
    assert read(first, "train") != read(order, "train")
    assert sorted(map(repr, read(first, "train"))) == sorted(map(repr, read(order, "train")))
    assert sorted(map(repr, read(first, "test"))) != sorted(map(repr, read(other, "test")))


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (AddingProblem, {"batch_size": 0}, "batch_size must be at least 1, not 0"),
        (AddingProblem, {"length": 1}, "length must be at least 2, one step for each mark, not 1"),
        (AddingProblem, {"num_samples": 0}, "num_samples must be at least 1, not 0"),
        (Parity, {"eval_samples": 0}, "eval_samples must be at least 1, not 0"),
        (Parity, {"min_length": 0}, "min_length must be at least 1, not 0"),
        (Parity, {"max_length": 2, "min_length": 3}, "max_length must be at least .* 3, not 2"),
        (Parity, {"test_length": 20}, "test_length must be greater than max_length 20.* not 20"),
        (TokenPairs, {"order": "shuffle"}, "order must be copy, reverse or sort, not 'shuffle'"),
        (TokenPairs, {"num_symbols": 1}, "num_symbols must be at least 2, not 1"),
    ],
)
def test_nonsense_is_refused_with_the_value(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(**arguments)


def test_too_few_different_sequences_are_refused():
    with pytest.raises(ValueError, match=r"num_samples .* at most 127 sequences.* not 300"):
        made(Parity, max_length=7)
