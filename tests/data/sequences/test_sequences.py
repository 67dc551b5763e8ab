import torch

from zoo.data.sequences.batches import SequenceBatch, sequence_loader


def ragged(lengths):
    return [torch.arange(length) + 10 * number for number, length in enumerate(lengths, start=1)]


def test_one_class_a_sequence_stands_beside_its_padded_tokens():
    loader = sequence_loader(ragged([3, 1, 5]), [7, 8, 9], batch_size=3)
    (batch,) = loader.batches(0)
    assert isinstance(batch, SequenceBatch)
    rows = {
        target: (row[:length].tolist(), row[length:].tolist())
        for row, target, length in zip(
            batch.inputs, batch.targets.tolist(), batch.lengths.tolist(), strict=True
        )
    }
    assert rows == {
        7: ([10, 11, 12], [0, 0]),
        8: ([20], [0, 0, 0, 0]),
        9: ([30, 31, 32, 33, 34], []),
    }
    assert batch.targets.dtype == batch.lengths.dtype == torch.int64


def test_one_class_a_step_is_ignored_where_the_sequence_has_ended():
    tokens = ragged([3, 1])
    loader = sequence_loader(tokens, [row % 3 for row in tokens], batch_size=2)
    (batch,) = loader.batches(0)
    for inputs, targets, length in zip(*batch, strict=True):
        assert torch.equal(targets[:length], inputs[:length] % 3)
        assert (targets[length:] == -100).all() and (inputs[length:] == 0).all()
    assert batch.targets.shape == (2, 3)


def test_steps_may_be_vectors():
    vectors = [torch.randn(3, 2), torch.randn(5, 2)]
    (batch,) = sequence_loader(vectors, [0, 1], batch_size=2).batches(0)
    assert batch.inputs.shape == (2, 5, 2)
    for row, target, length in zip(*batch, strict=True):
        assert torch.equal(row[:length], vectors[int(target)])


def test_an_epoch_visits_every_sequence_once_in_an_order_of_its_own():
    tokens = ragged([1 + number % 6 for number in range(60)])
    loader = sequence_loader(tokens, list(range(60)), batch_size=8, shuffle=True, seed=3)
    orders = [
        [target for batch in loader.batches(epoch) for target in batch.targets.tolist()]
        for epoch in (0, 0, 1)
    ]
    assert sorted(orders[0]) == list(range(60))
    assert orders[0] == orders[1] != orders[2]
    late = [b.targets.tolist() for b in loader.batches(1, 4)]
    assert late == [b.targets.tolist() for b in loader.batches(1)][4:]
