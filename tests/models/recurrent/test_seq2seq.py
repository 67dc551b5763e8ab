import pytest
import torch

from zoo.models.recurrent.encoder_decoder import reverse
from zoo.models.recurrent.seq2seq import Seq2Seq, seq2seq_lstm


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def test_parameter_counts_are_the_public_recipes():
    model = seq2seq_lstm(7853, 5893)
    encoder, decoder = model.encoder, model.decoder
    parts = ((encoder.embedding, decoder.embedding), (encoder.rnn,), (decoder.rnn,))
    counts = [count(*part) for part in (*parts, (decoder.fc_out,))]
    assert counts == [3_518_976, 3_678_208, 3_678_208, 3_023_109]
    assert sum(counts) == count(model) == 13_898_501


def test_the_papers_sizes_have_its_384_million_weights_64_of_them_recurrent():
    with torch.device("meta"):
        model = Seq2Seq(160_000, 80_000)
    weights = [p for p in model.parameters() if p.ndim == 2]
    assert sum(p.numel() for p in weights) == 384_000_000
    recurrent = [*model.encoder.rnn.parameters(), *model.decoder.rnn.parameters()]
    assert sum(p.numel() for p in recurrent if p.ndim == 2) == 64_000_000


def test_sequences_are_reversed_and_their_padding_stays_behind():
    x = torch.tensor([[1, 2, 3, 0], [4, 5, 6, 7], [8, 0, 0, 0]])
    expected = torch.tensor([[3, 2, 1, 0], [7, 6, 5, 4], [8, 0, 0, 0]])
    lengths = torch.tensor([3, 4, 1])
    assert torch.equal(reverse(x, lengths), expected)
    vectors = torch.stack([x, -x], dim=2)
    assert torch.equal(reverse(vectors, lengths), torch.stack([expected, -expected], dim=2))
    assert torch.equal(reverse(x), x[:, [3, 2, 1, 0]])


@pytest.mark.parametrize("lengths", [None, torch.tensor([2, 5, 4])])
def test_source_read_backwards_is_the_reversed_source_read_forwards(lengths):
    torch.manual_seed(0)
    sizes = {"embed_dim": 4, "hidden_size": 6, "dropout": 0.0}
    backwards = seq2seq_lstm(9, 9, **sizes)
    forwards = seq2seq_lstm(9, 9, reverse_source=False, **sizes)
    forwards.load_state_dict(backwards.state_dict(), strict=True)
    source, target = torch.randint(9, (3, 5)), torch.randint(9, (3, 4))
    turned = reverse(source, lengths)
    assert not torch.equal(turned, source)
    assert torch.equal(backwards(source, target, lengths), forwards(turned, target, lengths))
    assert not torch.equal(backwards(source, target, lengths), forwards(source, target, lengths))


def test_matrices_start_uniform_in_the_papers_range():
    torch.manual_seed(0)
    model = seq2seq_lstm(50, 50)
    matrices = torch.cat([p.flatten() for p in model.parameters() if p.ndim == 2])
    assert matrices.abs().max() <= 0.08
    assert matrices.std().item() == pytest.approx(0.08 / 3**0.5, rel=0.01)
