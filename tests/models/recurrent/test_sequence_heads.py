import pytest
import torch
from torch import nn

from zoo.models.recurrent.sequence_heads import (
    SequenceToVector,
    rnn_classifier,
    rnn_regressor,
    rnn_tagger,
)
from zoo.models.recurrent.tcn import tcn_classifier

EVERY_KIND = (
    "rnn",
    "rnn_relu",
    "lstm",
    "gru",
    "gru_paper",
    "minimal_gru",
    "peephole_lstm",
    "layer_norm_lstm",
)
LENGTHS = torch.tensor([4, 7, 1, 6])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def count(model):
    return sum(p.numel() for p in model.parameters())


def other_padding(inputs, lengths):
    """The same sequences with something else where they have ended."""
    changed = inputs.clone()
    for row, length in enumerate(lengths.tolist()):
        changed[row, length:] = 1 - changed[row, length:]
    return changed


def test_parameter_counts_are_the_docstrings():
    assert count(rnn_classifier(vocab_size=1000)) == 163_586
    assert count(rnn_tagger(vocab_size=1000)) == 163_586
    assert count(rnn_regressor(2)) == 67_713


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", EVERY_KIND)
def test_padding_changes_nothing_about_a_sequence(kind, bidirectional, pooling):
    settings = {"kind": kind, "hidden_size": 6, "num_layers": 2, "bidirectional": bidirectional}
    model = rnn_classifier(3, in_features=2, pooling=pooling, **settings).double()
    inputs = torch.randn(4, 7, 2, dtype=torch.double)
    output = model(inputs, LENGTHS)
    assert output.shape == (4, 3)
    torch.testing.assert_close(model(other_padding(inputs, LENGTHS), LENGTHS), output)
    for row, length in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(
            model(inputs[row : row + 1, :length])[0], output[row], msg=str(row)
        )


@pytest.mark.parametrize("backend", ["fused", "written"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_changes_nothing_about_the_tags_of_a_sequence(bidirectional, backend):
    model = rnn_tagger(3, vocab_size=5, bidirectional=bidirectional, backend=backend)
    tokens = torch.randint(2, (4, 7))
    output = model(tokens, LENGTHS)
    assert output.shape == (4, 7, 3)
    changed = model(other_padding(tokens, LENGTHS), LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(changed[row, :length], output[row, :length])
        torch.testing.assert_close(model(tokens[row : row + 1, :length])[0], output[row, :length])


def test_lengths_that_fill_every_row_equal_no_lengths():
    for pooling in ("last", "mean", "max"):
        model = rnn_regressor(2, 3, hidden_size=6, pooling=pooling)
        inputs = torch.randn(4, 7, 2)
        assert torch.equal(model(inputs, torch.full((4,), 7)), model(inputs))


def test_padding_passes_no_gradient():
    for pooling in ("last", "mean", "max"):
        model = rnn_regressor(2, hidden_size=6, pooling=pooling, bidirectional=True)
        inputs = torch.randn(4, 7, 2, requires_grad=True)
        model(inputs, LENGTHS).sum().backward()
        moved = inputs.grad.abs().sum(2) > 0  # (batch, time)
        assert torch.equal(moved, torch.arange(7) < LENGTHS.unsqueeze(1))


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_answer_is_the_last_state_of_torchs_own_layer_and_a_linear_map(kind):
    layer = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[kind]
    theirs = layer(2, 6, num_layers=2, batch_first=True, bidirectional=True)
    model = rnn_regressor(2, 3, kind=kind, hidden_size=6, num_layers=2, bidirectional=True)
    model.reader.rnn.load_state_dict(theirs.state_dict(), strict=True)
    inputs = torch.randn(4, 7, 2)
    output, state = theirs(inputs)
    h = state[0] if kind == "lstm" else state
    torch.testing.assert_close(model(inputs), model.head(torch.cat([h[2], h[3]], dim=1)))
    # Each direction has read the whole sequence: the last step forwards, the first backwards.
    both_ends = torch.cat([output[:, -1, :6], output[:, 0, 6:]], dim=1)
    torch.testing.assert_close(model(inputs), model.head(both_ends))


def test_pooling_is_the_mean_or_the_maximum_over_the_steps_that_there_are():
    inputs = torch.randn(4, 7, 2)
    for pooling, pool in (("mean", lambda h: h.mean(0)), ("max", lambda h: h.amax(0))):
        model = SequenceToVector(3, in_features=2, hidden_size=6, pooling=pooling)
        output, _ = model.reader(inputs, LENGTHS)
        pooled = torch.stack([pool(output[row, :n]) for row, n in enumerate(LENGTHS.tolist())])
        torch.testing.assert_close(model(inputs, LENGTHS), model.head(pooled))


def test_one_direction_tags_a_step_before_it_sees_the_next_and_two_do_not():
    tokens = torch.randint(5, (2, 7))
    changed = tokens.clone()
    changed[:, 4] = (tokens[:, 4] + 1) % 5
    model = rnn_tagger(3, vocab_size=5)
    assert torch.equal(model(tokens)[:, :4], model(changed)[:, :4])
    assert not torch.allclose(model(tokens)[:, 4], model(changed)[:, 4])
    both = rnn_tagger(3, vocab_size=5, bidirectional=True)
    assert not torch.allclose(both(tokens)[:, 3], both(changed)[:, 3])


def test_dropout_acts_in_training_only():
    model = rnn_classifier(vocab_size=5, dropout=0.5)
    tokens = torch.randint(5, (2, 7))
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_handful_of_padded_sequences_is_learned_by_heart(pooling):
    model = rnn_classifier(4, vocab_size=9, hidden_size=32, pooling=pooling)
    tokens, lengths = torch.randint(9, (8, 7)), torch.tensor([3, 7, 5, 4, 7, 6, 3, 5])
    targets = torch.arange(8) % 4
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(tokens, lengths), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "vocab_size must be given for tokens or in_features .* not None and None"),
        ({"vocab_size": 5, "in_features": 2}, "one of the two, not 5 and 2"),
        ({"vocab_size": 0}, "vocab_size must be at least 1, not 0"),
        ({"in_features": 0}, "in_features must be at least 1, not 0"),
        ({"vocab_size": 5, "embed_dim": 0}, "embed_dim must be at least 1, not 0"),
        ({"vocab_size": 5, "hidden_size": 0}, "hidden_size must be at least 1, not 0"),
        ({"vocab_size": 5, "num_layers": 0}, "num_layers must be at least 1, not 0"),
        ({"vocab_size": 5, "dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        ({"vocab_size": 5, "pooling": "sum"}, "pooling must be last, mean or max, not 'sum'"),
        ({"vocab_size": 5, "num_classes": 0}, "out_features must be at least 1, not 0"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        rnn_classifier(**arguments)


def test_inputs_of_the_other_sort_are_refused():
    with pytest.raises(ValueError, match=r"inputs must be tokens .* not \(2, 7, 3\) of"):
        rnn_classifier(vocab_size=5)(torch.randn(2, 7, 3))
    with pytest.raises(ValueError, match=r"vectors \(batch, time, 2\), not \(2, 7, 3\)"):
        rnn_regressor(2)(torch.randn(2, 7, 3))


@pytest.mark.parametrize(
    "lengths", [[6, 3], [6, 3, 7], [6, 3, 0], [6.0, 3.0, 1.0]], ids=lambda lengths: str(lengths)
)
def test_lengths_of_another_batch_are_refused(lengths):
    for build in (rnn_classifier, rnn_tagger, tcn_classifier):
        with pytest.raises(ValueError, match="lengths must be 3 whole numbers from 1 to 6, not"):
            build(vocab_size=9)(torch.randint(9, (3, 6)), torch.tensor(lengths))


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_torch_func_gives_the_gradient_of_each_sequence_of_its_own_length(kind):
    torch.manual_seed(0)
    model = rnn_classifier(3, in_features=2, hidden_size=4, bidirectional=True, kind=kind)
    weights, x = dict(model.named_parameters()), torch.randn(3, 5, 2)
    lengths = torch.tensor([2, 5, 3])

    def loss(weights, x, length):
        output = torch.func.functional_call(model, weights, (x[None], length[None]))
        return output.square().sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(weights, x, lengths)
    for i in range(3):
        expected = torch.autograd.grad(loss(weights, x[i], lengths[i]), list(weights.values()))
        torch.testing.assert_close(tuple(g[i] for g in each.values()), expected)
