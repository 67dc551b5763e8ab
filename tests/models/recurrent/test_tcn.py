import pytest
import torch
from torch import nn

from zoo.models.recurrent.tcn import (
    CausalConv1d,
    TemporalConvNet,
    tcn_classifier,
    tcn_regressor,
    tcn_tagger,
)
from zoo.models.recurrent.tcn_language_model import char_tcn


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_parameter_counts_are_the_docstrings():
    assert count(tcn_regressor(2)) == 58_051
    assert count(tcn_classifier(vocab_size=1000)) == count(tcn_tagger(vocab_size=1000)) == 409_730
    model = char_tcn()
    assert count(model.tcn) == 2_217_050 and count(model) == 2_223_615


@pytest.mark.parametrize(("kernel_size", "num_blocks"), [(2, 1), (2, 4), (3, 3), (5, 2), (1, 3)])
def test_receptive_field_is_the_formula_and_no_step_more(kernel_size, num_blocks):
    model = TemporalConvNet(3, (4,) * num_blocks, kernel_size=kernel_size, dropout=0.0).double()
    field = 1 + 2 * (kernel_size - 1) * (2**num_blocks - 1)
    assert model.receptive_field == field
    # Without the ReLUs' gaps every path counts; weights of one sign cannot cancel one another.
    for parameter in model.parameters():
        parameter.data.abs_()
    x = torch.rand(1, 3, field + 10, dtype=torch.double, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(x)[..., -1].sum(), x)
    seen = gradient[0].abs().sum(0) > 0
    assert seen.tolist() == [False] * 10 + [True] * field


@pytest.mark.parametrize("build", ["net", "tagger", "language_model"])
def test_changing_a_step_leaves_all_earlier_outputs_alone_bit_for_bit(build):
    tokens = torch.randint(9, (2, 40))
    changed = tokens.clone()
    changed[:, 17] = (tokens[:, 17] + 1) % 9
    if build == "net":
        table = torch.randn(9, 4)
        net = TemporalConvNet(4, (8, 8, 8), kernel_size=3, dropout=0.0)

        def model(tokens):
            return net(table[tokens].transpose(1, 2)).transpose(1, 2)
    elif build == "tagger":
        model = tcn_tagger(3, vocab_size=9, hidden_channels=(8, 8, 8), kernel_size=3)
    else:
        model = char_tcn(9, embed_dim=8, hidden_channels=(16, 8)).eval()
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :17], after[:, :17])
    assert not torch.allclose(before[:, 17], after[:, 17])


@pytest.mark.parametrize("every_step", [False, True])
def test_padding_changes_nothing_about_a_sequence(every_step):
    build = tcn_tagger if every_step else tcn_classifier
    model = build(3, in_features=2, hidden_channels=(8, 8, 8), kernel_size=3).double()
    inputs, lengths = torch.randn(4, 30, 2, dtype=torch.double), torch.tensor([4, 30, 1, 22])
    other = inputs.clone()
    for row, length in enumerate(lengths.tolist()):
        other[row, length:] = 1 - other[row, length:]
    output, changed = model(inputs, lengths), model(other, lengths)
    for row, length in enumerate(lengths.tolist()):
        steps = slice(None, length) if every_step else slice(None)
        torch.testing.assert_close(changed[row][steps], output[row][steps])
        torch.testing.assert_close(model(inputs[row : row + 1, :length])[0], output[row][steps])


def test_causal_convolution_is_its_equation():
    conv = CausalConv1d(2, 3, kernel_size=3, dilation=4)
    x = torch.randn(1, 2, 20)
    past = [x[0, :, 15 - 4 * i] for i in range(3)]  # torch keeps the taps from past to present
    expected = conv.bias + sum(conv.weight[:, :, 2 - i] @ past[i] for i in range(3))
    torch.testing.assert_close(conv(x)[0, :, 15], expected)


def test_dropout_acts_in_training_only():
    model = tcn_regressor(2, dropout=0.5)
    x = torch.randn(2, 10, 2)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_tied_decoder_is_the_embedding():
    tied, free = char_tcn(9), char_tcn(9, tie_weights=False)
    assert tied.decoder.weight is tied.encoder.weight
    assert count(free) == count(tied) + 9 * 100


def test_handful_of_padded_sequences_is_learned_by_heart():
    model = tcn_classifier(4, vocab_size=9, hidden_channels=(16, 16, 16), kernel_size=3)
    tokens, lengths = torch.randint(9, (8, 7)), torch.tensor([3, 7, 5, 4, 7, 6, 3, 5])
    targets = torch.arange(8) % 4
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(80):
        loss = nn.functional.cross_entropy(model(tokens, lengths), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_short_text_is_learned_by_heart():
    model = char_tcn(9, embed_dim=16, hidden_channels=(32, 32, 16), dropout=0.0)
    text = torch.randint(9, (2, 12))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(100):
        logits = model(text[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_channels": ()}, "hidden_channels must name a width for at least one block"),
        ({"hidden_channels": (4, 0)}, r"hidden_channels must be at least 1, not \(4, 0\)"),
        ({"kernel_size": 0}, "kernel_size must be at least 1, not 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        ({"num_classes": 0}, "out_features must be at least 1, not 0"),
        ({"in_features": 2}, "one of the two, not 5 and 2"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        tcn_classifier(**{"vocab_size": 5, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sequence_length": 0}, "sequence_length must be at least 1, not 0"),
        ({"embedding_dropout": 1.0}, r"embedding_dropout must be in \[0, 1\), not 1.0"),
        (
            {"embed_dim": 8},
            "tie_weights must be false where the last block is 100 wide and the embedding 8",
        ),
    ],
)
def test_language_model_refuses_nonsense_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        char_tcn(9, **arguments)
